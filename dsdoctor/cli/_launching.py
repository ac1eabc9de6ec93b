"""What `launch` and `plan` do with their options: examine, plan, check, say what was found, and go."""

from __future__ import annotations

import json
import os
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import click

from dsdoctor.cli._failures import UNEXAMINED
from dsdoctor.cli._options import host_choice
from dsdoctor.cli._project import judged
from dsdoctor.cli._target import agreed, job_and_target, without_head
from dsdoctor.cli._watching import limits_of
from dsdoctor.escape import escape, escape_block
from dsdoctor.terminal import say, write

if TYPE_CHECKING:
    from dsdoctor.cluster import Cluster
    from dsdoctor.hosts.transport import Transport, TransportKind
    from dsdoctor.jobs.job import ResolvedJob
    from dsdoctor.plan.build import Wishes
    from dsdoctor.plan.layers import Setting
    from dsdoctor.plan.model import LaunchPlan
    from dsdoctor.report.model import Report
    from dsdoctor.run.directory import RunDirectory
    from dsdoctor.run.launch import Prepared, Target
    from dsdoctor.run.outcome import Outcome
    from dsdoctor.run.stage_end import Limits


class Launching:
    """A launch from its options on: the job, the hosts as examined, what was planned and what the checks said."""

    def __init__(self, options: dict[str, Any], stack: ExitStack, job: ResolvedJob, target: Target) -> None:
        from dsdoctor.checks.engine import UnknownCheckError
        from dsdoctor.hosts.examine import examine
        from dsdoctor.plan.build import Wishes
        from dsdoctor.run.deepspeed_files import read_deepspeed_env
        from dsdoctor.run.launch import prepare

        began = time.monotonic()
        self._baseline: str | None = options["baseline"]
        self.transports: dict[str, Transport] = {}
        stack.callback(self._close)
        self.job, self.target = job, target
        settings = tuple(_setting(word) for word in options["variables"])
        self.wishes: Wishes = Wishes(options["master_port"], settings, read_deepspeed_env())
        self.cluster: Cluster = examine(host_choice(options), job=self.job, transports=self.transports)
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
    job, target = job_and_target(options)
    with ExitStack() as stack:
        launching = Launching(options, stack, job, target)
        _say_findings(launching)
        plan = launching.prepared.plan
        if plan is None:
            say(f"\ndsdoctor: no plan can be made: {escape(launching.prepared.problem or '')}")
            return launching.refusal()
        if target.chosen:
            import msgspec

            stages = tuple(stage for stage in plan.stages if stage.name in target.chosen)
            plan = msgspec.structs.replace(plan, stages=stages)
        if form == "json":
            write(json.dumps(plan.to_dict(), indent=1, ensure_ascii=False))
        else:
            from dsdoctor.plan.shell import as_shell

            write(as_shell(plan))
        return launching.refusal()


def run_launch(options: dict[str, Any], lifeline: float, detach: bool, yes: bool) -> int:
    """`launch`: carry the plan out, unless the checks forbid it."""
    job, target = job_and_target(options)
    if target.resumed is not None:
        target.resumed.refuse_when_held()
    if target.resumed is not None and without_head(target.resumed):
        from dsdoctor.cli._detached import come_back

        return come_back(target.resumed)
    refused = agreed(target, yes)
    if refused is not None:
        return refused
    transport: TransportKind = options["transport"]
    with ExitStack() as stack:
        launching = Launching(options, stack, job, target)
        _say_findings(launching)
        refusal = launching.refusal()
        plan = launching.prepared.plan
        if plan is None:
            say(f"\ndsdoctor: no plan can be made: {escape(launching.prepared.problem or '')}")
            return refusal
        if refusal:
            say("\ndsdoctor: not started, because of what is said above. --ignore NAME starts in spite of a finding.")
            return refusal
        _say_plan(launching, plan)
        return _carry_out(launching, plan, transport, limits_of(lifeline, options), detach)


def _say_plan(launching: Launching, plan: LaunchPlan) -> None:
    if launching.target.note:
        say(escape(launching.target.note))
    profile = f", profile {plan.profile}" if plan.profile else ""
    hosts = ", ".join(f"{host.name} × {host.slots}" for host in plan.hosts)
    say(f"{escape(plan.job)}{escape(profile)} on {escape(hosts)}: run {escape(str(launching.target.path))}")
    for warning in plan.warnings:
        say(f"  ! {escape(warning)}")
    if plan.mended_config is not None:
        say(f"  {escape(plan.mended_config.original)} stays as it is; this run uses a mended copy of it:")
        for change in plan.mended_config.changes:
            say(f"    {escape(change)}")


def _carry_out(launching: Launching, plan: LaunchPlan, transport: TransportKind, limits: Limits, detach: bool) -> int:
    """Write the run down and carry it out: here, or by a head of its own."""
    from dsdoctor.cli._run_view import RunView
    from dsdoctor.run.execute import execute
    from dsdoctor.run.kept import secrets_of, way_of
    from dsdoctor.run.launch import directory_of, write_down
    from dsdoctor.run.outcome import Manner

    began = time.monotonic()
    target = launching.target
    directory = directory_of(target)
    view: RunView | None = None
    with directory.locked(handed_on=detach) as lock:
        write_down(
            directory,
            launching.job,
            launching.cluster,
            target,
            launching.prepared,
            way_of(transport),
            limits,
            launching.report(),
        )
        if detach:
            from dsdoctor.run.head import start_head

            head = start_head(directory, lock, secrets_of(plan), chosen=target.chosen)
        else:
            view = RunView(len(plan.hosts))
            try:
                manner = Manner(chosen=target.chosen)
                outcome = execute(plan, launching.transports, directory, view, limits=limits, manner=manner)
            finally:
                view.close()
    if view is None:
        from dsdoctor.cli._detached import until_up

        return until_up(directory, head)
    return ended(plan, directory, outcome, time.monotonic() - began)


def ended(plan: LaunchPlan, directory: RunDirectory, outcome: Outcome, seconds: float) -> int:
    """Say how it ended: the job's own summary on standard output, or what failed and how to go on."""
    if outcome.status == "done":
        summary = directory.path / "outputs" / plan.stages[-1].folder / plan.summary if plan.summary else None
        if summary is not None and summary.is_file():
            write("\n" + escape_block(summary.read_text(encoding="utf-8", errors="replace")))
        stages = sum(outcome.stage_seconds.values())
        say(f"done in {seconds:.1f} s ({stages:.1f} s in the stages); everything is in {escape(str(directory.path))}")
        return 0
    if outcome.status == "running":
        say(f"the head leaves; the hosts go on. dsdoctor attach {escape(directory.name)} comes back to the run")
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
