"""`dsdoctor sync`: copy a job's code, data and model to its hosts, and say how each came by them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from dsdoctor.cli._options import host_options, with_options

if TYPE_CHECKING:
    from dsdoctor.plan.model import LaunchPlan
    from dsdoctor.run.sync.ways import Ways


@click.command("sync")
@with_options(
    click.argument("job"),
    *host_options(),
    click.option("--profile", metavar="NAME", help="A profile of the job; without it the job's default one."),
    click.option(
        "--set", "settings", multiple=True, metavar="[STAGE.]KEY=VALUE", help="Lay an argument over the job's."
    ),
    click.option(
        "--runs", "base", default="runs", show_default=True, help="Where the directories of runs are; it is not copied."
    ),
    click.option("--dry-run", is_flag=True, help="Print the rsync lines and copy nothing."),
    click.option(
        "--lifeline",
        type=click.FloatRange(min=3),
        default=20.0,
        show_default=True,
        metavar="SECONDS",
        help="A host that is silent for so long is given up.",
    ),
)
def sync(base: str, dry_run: bool, lifeline: float, **options: Any) -> int:
    """Copy the job's code, data and model to the hosts.

    Nothing is started. Hosts on a shared file system are copied to once, data and model only where a host does not
    have them whole, and a host that could not be reached does not keep the others from their copies.
    """
    from pathlib import Path

    from dsdoctor.cli._failures import UNEXAMINED
    from dsdoctor.cli._options import host_choice
    from dsdoctor.escape import escape
    from dsdoctor.hosts.examine import CONNECT_SECONDS, choose
    from dsdoctor.run.sync.ways import Ways

    _told_to_end_is_interrupted()
    choice = host_choice(options)
    chosen = choose(choice)
    for warning in chosen.warnings:
        _say(escape(warning))
    entries = [entry for entry in chosen.entries if entry.processes > 0]
    with Ways(entries, choice.transport, min(CONNECT_SECONDS, choice.timeout)) as ways:
        from dsdoctor.jobs.load import load_job
        from dsdoctor.plan.copies import copy_plan, interpreter
        from dsdoctor.plan.model import PlanError
        from dsdoctor.run.places import paths_of
        from dsdoctor.terminal import status_line

        job = load_job(options["job"], options["profile"], options["settings"])
        paths = paths_of(job, Path(base, "sync"))
        with status_line() as line:
            line.show(f"connecting to {len(entries)} hosts" if len(entries) > 1 else "connecting")
            homes = ways.homes(
                lambda entry: interpreter(job, entry, paths),
                job.job.setup,
                lifeline=lifeline,
                patience=choice.timeout,
            )
        for name, why in ways.lost.items():
            _say(f"{name} is not reached and gets no copy: {why}")
        code = UNEXAMINED if ways.lost else 0
        reached = [entry for entry in entries if entry.name not in ways.lost]
        if not reached:
            return code
        try:
            plan = copy_plan(job, reached, homes, paths)
        except PlanError as error:
            _say(f"\ndsdoctor: no plan can be made: {error}")
            return code or 1
        for warning in plan.warnings:
            _say(f"  ! {warning}")
        if dry_run:
            _print_lines(plan)
            return code
        return _copy(plan, ways, lifeline) or code


def _told_to_end_is_interrupted() -> None:
    """Let what ends this process close its connections first."""
    import signal

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)


def _print_lines(plan: LaunchPlan) -> None:
    from dsdoctor.plan.shell import copy_lines
    from dsdoctor.terminal import write

    lines = []
    for host in plan.hosts:
        lines += [f"# --- {host.name}" + (": this machine, nothing is copied" if host.local else "")]
        lines += copy_lines(plan, host)
    write("\n".join(lines))


def _copy(plan: LaunchPlan, ways: Ways, lifeline: float) -> int:
    from dsdoctor.cli._copy_view import CopyView
    from dsdoctor.escape import escape
    from dsdoctor.run.sync import SyncError
    from dsdoctor.run.sync import sync as copy
    from dsdoctor.terminal import write

    view = CopyView()
    try:
        copies = copy(plan, ways.transports, view, lifeline=lifeline, sessions=ways.sessions)
    except SyncError as error:
        view.close()
        _say(f"\ndsdoctor: {error}")
        return 1
    view.close()
    if not copies:
        write("every host is this machine: nothing to copy")
    for got in copies:
        write(escape(got.sentence))
        for warning in got.warnings:
            _say(f"  ! {warning}")
    return 0


def _say(text: str) -> None:
    from dsdoctor.escape import escape_block
    from dsdoctor.terminal import say

    say(escape_block(text))
