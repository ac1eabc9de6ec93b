"""`dsdoctor sync`: copy a job's code, data and model to its hosts, and say how each came by them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from dsdoctor.cli._options import host_options, with_options

if TYPE_CHECKING:
    from dsdoctor.cli._copy_view import CopyView
    from dsdoctor.plan.model import LaunchPlan
    from dsdoctor.run.sync.parts import Got
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
        reached = [entry for entry in entries if entry.name not in ways.lost]
        _say_lost(ways.lost)
        if not reached:
            return UNEXAMINED
        try:
            plan = copy_plan(job, reached, homes, paths)
        except PlanError as error:
            _say(f"\ndsdoctor: no plan can be made: {error}")
            return UNEXAMINED if ways.lost else 1
        for warning in plan.warnings:
            _say(f"  ! {warning}")
        if dry_run:
            _print_lines(plan)
            return UNEXAMINED if ways.lost else 0
        code = _bring(plan, ways, lifeline)
        return code or (UNEXAMINED if ways.lost else 0)


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


def _bring(plan: LaunchPlan, ways: Ways, lifeline: float) -> int:
    """Copy to the hosts that have not the very same already, and say of each how it came by its files."""
    from dsdoctor.cli._copy_view import CopyView
    from dsdoctor.escape import escape
    from dsdoctor.run.events import Copying
    from dsdoctor.run.sync.errors import SyncError
    from dsdoctor.terminal import write

    if all(host.local for host in plan.hosts):
        write("every host is this machine: nothing to copy")
        return 0
    view = CopyView()
    try:
        same = _unchanged(plan, ways, lifeline)
        for name in same:
            view(Copying(name, 100, "code"))
        copies = _copies(plan, same, ways, view, lifeline)
    except SyncError as error:
        view.close()
        _say(f"\ndsdoctor: {error}")
        return 1
    view.close()
    place = {host.name: number for number, host in enumerate(plan.hosts)}
    told = [(got.what, place[got.host], got.sentence, got.warnings) for got in copies]
    told += [("code", place[name], f"code is on {name}: unchanged", ()) for name in same]
    for _, _, sentence, warnings in sorted(told):
        write(escape(sentence))
        for warning in warnings:
            _say(f"  ! {warning}")
    return 0


def _unchanged(plan: LaunchPlan, ways: Ways, lifeline: float) -> list[str]:
    """The hosts that need nothing, in the plan's order; data and models are rsync's to look at."""
    from dsdoctor.run.sync.source import left_out

    if plan.sync.trees:
        return []
    return ways.unchanged(plan.hosts, plan.sync.source, left_out(plan.sync), lifeline)


def _copies(plan: LaunchPlan, same: list[str], ways: Ways, view: CopyView, lifeline: float) -> list[Got]:
    """Talk with the other hosts and copy to them; those that are lost on the way do not keep the others."""
    wanted = [host.name for host in plan.hosts if not host.local and host.name not in same]
    if not wanted:
        return []
    from msgspec.structs import replace

    from dsdoctor.run.sync.carry_out import sync as copy

    before = set(ways.lost)
    ways.talk(wanted)
    _say_lost({name: why for name, why in ways.lost.items() if name not in before})
    hosts = tuple(host for host in plan.hosts if host.name in wanted and host.name not in ways.lost)
    return copy(replace(plan, hosts=hosts), ways.transports, view, lifeline=lifeline, sessions=ways.sessions)


def _say_lost(lost: dict[str, str]) -> None:
    for name, why in lost.items():
        _say(f"{name} is not reached and gets no copy: {why}")


def _say(text: str) -> None:
    from dsdoctor.escape import escape_block
    from dsdoctor.terminal import say

    say(escape_block(text))
