"""What `launch` and `plan` do with their options: examine, plan, check, say what was found, and go."""

from __future__ import annotations

import json
import os
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dsdoctor.cli._failures import UNEXAMINED
from dsdoctor.cli._options import host_choice
from dsdoctor.cli._project import judged
from dsdoctor.escape import escape, escape_block
from dsdoctor.terminal import say, write

if TYPE_CHECKING:
    from dsdoctor.cluster import Cluster
    from dsdoctor.hosts.transport import Transport
    from dsdoctor.jobs.job import ResolvedJob
    from dsdoctor.plan.build import Wishes
    from dsdoctor.plan.layers import Setting
    from dsdoctor.plan.model import LaunchPlan
    from dsdoctor.report.model import Report
    from dsdoctor.run.directory import RunDirectory
    from dsdoctor.run.execute import Outcome
    from dsdoctor.run.launch import Prepared, Target


class Launching:
    """A launch from its options on: the job, the hosts as examined, what was planned and what the checks said."""

    def __init__(self, options: dict[str, Any], stack: ExitStack) -> None:
        from dsdoctor.checks.engine import UnknownCheckError
        from dsdoctor.hosts.examine import examine
        from dsdoctor.jobs.load import load_job
        from dsdoctor.plan.build import Wishes
        from dsdoctor.run.deepspeed_files import read_deepspeed_env
        from dsdoctor.run.launch import choose_target, prepare

        began = time.monotonic()
        self._baseline: str | None = options["baseline"]
        self.transports: dict[str, Transport] = {}
        stack.callback(self._close)
        self.job: ResolvedJob = load_job(options["job"], options["profile"], options["settings"])
        settings = tuple(_setting(word) for word in options["variables"])
        self.wishes: Wishes = Wishes(options["master_port"], settings, read_deepspeed_env())
        self.cluster: Cluster = examine(host_choice(options), job=self.job, transports=self.transports)
        self.target: Target = choose_target(Path(options["base"]), self.job, options["fresh"])
        try:
            self.prepared: Prepared = prepare(
                self.job,
                self.cluster,
                self.target,
                self.wishes,
                ignore=options["ignore"],
                check=not options["no_check"],
            )
        except UnknownCheckError as error:
            raise click.UsageError(str(error)) from None
        self.seconds = time.monotonic() - began

    def _close(self) -> None:
        for transport in self.transports.values():
            transport.close()

    def report(self) -> Report:
        """What the checks found, as the report that `check` would give."""
        from dsdoctor.report.assemble import report_of

        return judged(report_of(self.cluster, self.prepared.checked, self.seconds), self._baseline)

    def refusal(self) -> int:
        """The exit code that keeps the launch from starting, 0 when it may start."""
        if self.prepared.plan is None:
            return self.report().exit_code() or (UNEXAMINED if len(self.cluster.examined) < len(self.cluster) else 1)
        return self.report().exit_code()


def show_plan(options: dict[str, Any], form: str) -> int:
    """`plan` and `launch --dry-run`: print the plan; findings go to standard error."""
    with ExitStack() as stack:
        launching = Launching(options, stack)
        _say_findings(launching)
        plan = launching.prepared.plan
        if plan is None:
            say(f"\ndsdoctor: no plan can be made: {escape(launching.prepared.problem or '')}")
            return launching.refusal()
        if form == "json":
            write(json.dumps(plan.to_dict(), indent=1, ensure_ascii=False))
        else:
            from dsdoctor.plan.shell import as_shell

            write(as_shell(plan))
        return launching.refusal()


def run_launch(options: dict[str, Any], lifeline: float) -> int:
    """`launch`: carry the plan out, unless the checks forbid it."""
    with ExitStack() as stack:
        launching = Launching(options, stack)
        _say_findings(launching)
        refusal = launching.refusal()
        plan = launching.prepared.plan
        if plan is None:
            say(f"\ndsdoctor: no plan can be made: {escape(launching.prepared.problem or '')}")
            return refusal
        if refusal:
            say("\ndsdoctor: not started, because of what is said above. --ignore NAME starts in spite of a finding.")
            return refusal
        return _carry_out(launching, plan, lifeline)


def _carry_out(launching: Launching, plan: LaunchPlan, lifeline: float) -> int:
    from dsdoctor.cli._run_view import RunView
    from dsdoctor.plan.model import PlanError
    from dsdoctor.run.launch import launch
    from dsdoctor.run.stage_end import Limits

    if launching.target.note:
        say(escape(launching.target.note))
    profile = f", profile {plan.profile}" if plan.profile else ""
    hosts = ", ".join(f"{host.name} × {host.slots}" for host in plan.hosts)
    say(f"{escape(plan.job)}{escape(profile)} on {escape(hosts)}: run {escape(str(launching.target.path))}")
    for warning in plan.warnings:
        say(f"  ! {escape(warning)}")
    began = time.monotonic()
    view = RunView(len(plan.hosts))
    try:
        directory, outcome = launch(
            launching.job,
            launching.cluster,
            launching.target,
            launching.prepared,
            launching.transports,
            view,
            Limits(lifeline=lifeline),
        )
    except PlanError as error:
        say(f"dsdoctor: {escape(str(error))}")
        return 1
    finally:
        view.close()
    return _ended(plan, directory, outcome, time.monotonic() - began)


def _ended(plan: LaunchPlan, directory: RunDirectory, outcome: Outcome, seconds: float) -> int:
    """Say how it ended: the job's own summary on standard output, or what failed and how to go on."""
    if outcome.status == "done":
        summary = directory.path / "outputs" / plan.stages[-1].folder / plan.summary if plan.summary else None
        if summary is not None and summary.is_file():
            write("\n" + escape_block(summary.read_text(encoding="utf-8", errors="replace")))
        stages = sum(outcome.stage_seconds.values())
        say(f"done in {seconds:.1f} s ({stages:.1f} s in the stages); everything is in {escape(str(directory.path))}")
        return 0
    if outcome.status == "interrupted":
        where = f"stopped, {outcome.failure}" if outcome.failure else "stopped on every host"
        say(f"{escape(where)}; launch again to go on with the first stage that is not done")
        return outcome.exit_code
    say(f"\ndsdoctor: {escape(outcome.failure or 'failed')}")
    if outcome.stage:
        folder = next(stage.folder for stage in plan.stages if stage.name == outcome.stage)
        say(f"  logs: {escape(str(directory.logs(folder)))}")
        say("  launch again to go on with this stage")
    return outcome.exit_code


def _say_findings(launching: Launching) -> None:
    """What the checks found, on standard error; one line when there is nothing."""
    import sys

    from dsdoctor.report import text
    from dsdoctor.terminal import look_of

    report = launching.report()
    if report.findings or report.crashed or any(not host.reachable for host in report.hosts):
        say(text.render(report, look_of(sys.stderr)))
        return
    counts = report.counts()
    if counts["passed"] or counts["skipped"]:
        hosts = "1 host" if len(report.hosts) == 1 else f"{len(report.hosts)} hosts"
        say(f"{hosts} checked in {report.seconds:.1f} s: nothing wrong ({counts['passed']} checks passed)")


def _setting(word: str) -> Setting:
    """`[HOST:]NAME[=VALUE]`; without a value it is this machine's own, so that a secret need not be typed.

    `[HOST:]NAME-` takes a variable away that the session on a host has, or that is derived.
    """
    from dsdoctor.plan.layers import Setting, is_secret

    left, equals, value = word.partition("=")
    host, colon, name = left.rpartition(":")
    if not name.removesuffix("-"):
        raise click.UsageError(f"--env {word!r} is not [HOST:]NAME[=VALUE], nor [HOST:]NAME-")
    if not equals and name.endswith("-"):
        return Setting(name[:-1], None, "command line", f"--env {left}", host if colon else None)
    if equals and value and is_secret(name, value):
        say(
            f"--env {escape(left)}=…: everybody on this machine can read a value on the command line, and the shell "
            f"keeps it. Set {escape(name)} in the environment here and write --env {escape(left)}"
        )
    if not equals:
        if name not in os.environ:
            raise click.UsageError(f"--env {word}: {name} is not set here, so there is no value to hand on")
        value = os.environ[name]
    return Setting(name, value, "command line", f"--env {left}", host if colon else None)
