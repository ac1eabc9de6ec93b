"""`dsdoctor sync`: copy a job's code, data and model to its hosts, and say how each came by them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from dsdoctor.cli._options import host_options, with_options

if TYPE_CHECKING:
    from dsdoctor.cluster import Cluster
    from dsdoctor.hosts.transport import Transport
    from dsdoctor.plan.model import LaunchPlan


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
    from dsdoctor.cli._options import host_choice
    from dsdoctor.hosts.examine import examine
    from dsdoctor.jobs.load import load_job
    from dsdoctor.run.launch import Target, prepare

    job = load_job(options["job"], options["profile"], options["settings"])
    transports: dict[str, Transport] = {}
    try:
        cluster = examine(host_choice(options), job=job, transports=transports)
        reached, code = _reached(cluster)
        if not reached:
            return code
        from pathlib import Path

        from dsdoctor.plan.build import Wishes

        prepared = prepare(job, reached, Target("sync", Path(base) / "sync", None), Wishes(), check=False)
        if prepared.plan is None:
            _say(f"\ndsdoctor: no plan can be made: {prepared.problem or ''}")
            return code or 1
        if dry_run:
            _print_lines(prepared.plan)
            return code
        return _copy(prepared.plan, transports, lifeline) or code
    finally:
        for transport in transports.values():
            transport.close()


def _reached(cluster: Cluster) -> tuple[Cluster | None, int]:
    """The hosts that answered, and the exit code for those that did not; they are named on standard error."""
    from dataclasses import replace

    from dsdoctor.cli._failures import UNEXAMINED

    lost = [member for member in cluster if member.facts is None]
    for member in lost:
        _say(f"{member.name} could not be examined and gets no copy: {member.reach.detail or member.reach.problem}")
    examined = tuple(member for member in cluster if member.facts is not None)
    return replace(cluster, members=examined) if examined else None, UNEXAMINED if lost else 0


def _print_lines(plan: LaunchPlan) -> None:
    from dsdoctor.plan.shell import copy_lines
    from dsdoctor.terminal import write

    lines = []
    for host in plan.hosts:
        lines += [f"# --- {host.name}" + (": this machine, nothing is copied" if host.local else "")]
        lines += copy_lines(plan, host)
    write("\n".join(lines))


def _copy(plan: LaunchPlan, transports: dict[str, Transport], lifeline: float) -> int:
    import signal

    from dsdoctor.cli._copy_view import CopyView
    from dsdoctor.escape import escape
    from dsdoctor.run.sync import SyncError
    from dsdoctor.run.sync import sync as copy
    from dsdoctor.terminal import write

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)
    view = CopyView()
    try:
        copies = copy(plan, transports, view, lifeline=lifeline)
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
