"""`dsdoctor check`: examine hosts and job, say what is wrong and how to mend it."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from dsdoctor.cli._options import (
    facts_options,
    host_choice,
    host_options,
    ignore_option,
    report_options,
    with_options,
)
from dsdoctor.cli._project import judged, keep_baseline, split_names

if TYPE_CHECKING:
    from dsdoctor.cluster import Cluster
    from dsdoctor.hosts.examine import HostChoice
    from dsdoctor.hosts.mend import Mend
    from dsdoctor.jobs.job import ResolvedJob
    from dsdoctor.report.model import Report


@click.command()
@with_options(
    *host_options(),
    click.option("--job", metavar="NAME|FILE", help="Judge this job's settings too, on these hosts."),
    click.option("--network", is_flag=True, help="Let the hosts connect to each other, and measure how fast they are."),
    click.option("--deep", is_flag=True, help="Try torch, GPUs and collectives on the hosts; takes up to 3 minutes."),
    *facts_options(),
    click.option(
        "--select", multiple=True, callback=split_names, metavar="NAME[,NAME...]", help="Only these checks. Repeatable."
    ),
    ignore_option("Let these findings pass: they are shown, and no errors."),
    click.option("--baseline", metavar="FILE", help="Let the findings pass that are in this file; new ones count."),
    click.option("--save-baseline", "accepted", metavar="FILE", help="Write the findings into such a file."),
    *report_options(),
    click.option("--fix", "mend", is_flag=True, help="Run safe fixes, and write mended copies of configs; asks."),
    click.option("--yes", is_flag=True, help="Do not ask before --fix runs them."),
    click.argument("arguments", nargs=-1, metavar="[-- ARGUMENT...]"),
)
def check(**options: Any) -> int:
    """Check the hosts, and a job's settings on them.

    Without --hostfile this machine is examined. Nothing is installed or changed on any host (--fix apart, which
    asks). The exit code is 1 when something is wrong and 3 when a host could not be examined.

    What a shell script is called with, its $1 and so on, is given behind two dashes: --job run.sh -- out 8 1e-5
    """
    from dsdoctor.report.model import Severity

    choice = host_choice(options)
    _consistent(choice, options)
    looked = _look(choice, options)
    report = _mended(looked, choice, options) if options["mend"] else looked.report
    if options["accepted"] is not None:
        keep_baseline(report, options["accepted"])
    _print(report, options)
    return report.exit_code(Severity(options["fail_on"]))


def _consistent(choice: HostChoice, options: dict[str, Any]) -> None:
    """Refuse options that do not go together. Raises UsageError."""
    from dsdoctor.terminal import is_terminal

    if options["arguments"] and not options["job"]:
        given = " ".join(options["arguments"])
        raise click.UsageError(f"{given}: arguments are those of the script that --job names")
    if choice.network and options["recorded"] is not None:
        raise click.UsageError("--network tries the hosts, and --facts contacts none; leave one of the two out")
    if options["deep"] and options["recorded"] is not None:
        raise click.UsageError("--deep tries the hosts, and --facts contacts none; leave one of the two out")
    if options["accepted"] is not None and options["baseline"] is not None:
        raise click.UsageError("--save-baseline writes all that is found, --baseline hides some of it; leave one out")
    if options["redact"] and options["keep"] is None:
        raise click.UsageError("--redact is about what --save-facts DIR keeps; give both")
    if options["mend"] and options["recorded"] is not None:
        raise click.UsageError("--fix mends hosts, and --facts contacts none; leave one of the two out")
    if options["yes"] and not options["mend"]:
        raise click.UsageError("--yes answers the question of --fix; give both")
    if options["mend"] and not options["yes"] and not is_terminal(sys.stdin):
        raise click.UsageError("--fix asks first, and nobody can answer here; add --yes")


class Looked(NamedTuple):
    """A report, and what it was made of."""

    report: Report
    cluster: Cluster
    job: ResolvedJob | None


def _look(choice: HostChoice, options: dict[str, Any]) -> Looked:
    """Examine, keep the facts where that was asked, judge."""
    import threading

    from dsdoctor.checks.engine import UnknownCheckError, discover, run_checks
    from dsdoctor.cli._examined import examined, keep_facts, without_names
    from dsdoctor.jobs.load_any import load_any
    from dsdoctor.report.assemble import report_of
    from dsdoctor.report.trial_times import trial_notes

    began = time.monotonic()
    job = load_any(options["job"], arguments=options["arguments"]) if options["job"] else None
    threading.Thread(target=discover, daemon=True).start()  # the checks are loaded while the hosts answer
    cluster = examined(choice, options["recorded"], job, deep=options["deep"])
    if options["keep"] is not None:
        keep_facts(without_names(cluster) if options["redact"] else cluster, options["keep"])
    try:
        outcome = run_checks(cluster, job, select=options["select"], ignore=options["ignore"])
    except UnknownCheckError as error:
        raise click.UsageError(str(error)) from None
    notes = (*_notes(options["recorded"], job), *trial_notes(cluster, options["verbose"]))
    report = report_of(cluster, outcome, time.monotonic() - began, notes=notes)
    return Looked(judged(report, options["baseline"]), cluster, job)


def _notes(recorded: str | None, job: ResolvedJob | None) -> tuple[str, ...]:
    """What the verdict rests on, where that is not plain from the command."""
    notes = []
    if recorded is not None:
        notes.append(f"Judged from the snapshots in {recorded}; no host was contacted.")
    if job is not None:
        profile = f", profile {job.profile}" if job.profile else ""
        notes.append(f"Job {job.name}{profile}, from {job.source}")
        notes += job.notes
    return tuple(notes)


def _mended(looked: Looked, choice: HostChoice, options: dict[str, Any]) -> Report:
    """Offer mended copies of the job's configs; show the safe fixes, ask, run them and look again.

    The same report when there is nothing to run: a copy of a config changes nothing of what was looked at.
    """
    from dsdoctor.cli._mending import mend_configs
    from dsdoctor.escape import escape
    from dsdoctor.hosts.mend import carry_out, safe_mends
    from dsdoctor.terminal import say

    job, ignore = looked.job, options["ignore"]
    offered = job is not None and mend_configs(job, looked.cluster, ignore, ask=not options["yes"])
    mends = safe_mends(looked.report.findings)
    if not mends:
        if not offered:
            say("--fix: none of the findings has a fix that is safe to run unseen; the report shows what to do by hand")
        return looked.report
    _show(mends)
    if not options["yes"] and not click.confirm("Run them now?", default=False, err=True):
        return looked.report
    for mend in mends:
        failed = carry_out(mend.fix.commands)
        if failed is not None:
            say(f"--fix: {escape(failed[0])} ended with exit code {failed[1]}; its other commands were not run")
    return _look(choice, options).report


def _show(mends: tuple[Mend, ...]) -> None:
    from dsdoctor.escape import escape, escape_block
    from dsdoctor.report.layout import fold
    from dsdoctor.terminal import say

    say("These fixes are safe to run:")
    for mend in mends:
        where = f" ({escape(fold(mend.finding.hosts))})" if mend.finding.hosts else ""
        say(f"\n{escape(mend.finding.name)}{where}: {escape(mend.fix.title)}")
        for command in mend.fix.commands:
            say("\n".join(f"    {line}" for line in escape_block(command).split("\n")))


def _print(report: Report, options: dict[str, Any]) -> None:
    from dsdoctor.report.formats import render
    from dsdoctor.report.layout import Look
    from dsdoctor.report.model import Severity
    from dsdoctor.terminal import deliver, look_of

    look = look_of(sys.stdout) if options["output"] in (None, "-") else Look()
    verbose, fail_on = options["verbose"], Severity(options["fail_on"])
    deliver(render(report, options["form"], look, verbose=verbose, fail_on=fail_on), options["output"])
