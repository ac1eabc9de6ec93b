"""`dsdoctor stop`: end a run on every host, whoever carries it out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from dsdoctor.cli._options import with_options
from dsdoctor.cli._runs import run_options

if TYPE_CHECKING:
    from dsdoctor.run.directory import RunDirectory

HEAD_SECONDS = 25.0  # that a head has for stopping its hosts


@click.command("stop")
@with_options(*run_options())
def stop(run: str | None, base: str) -> int:
    """End a run on every host, and wait until it is gone.

    RUN is its name or its path, the newest without it. The exit code is 3 when a host could not be reached.
    """
    from dsdoctor.cli._failures import UNEXAMINED
    from dsdoctor.cli._runs import lines_of, meant
    from dsdoctor.escape import escape
    from dsdoctor.run.kept import load
    from dsdoctor.run.reach import stop as stop_hosts
    from dsdoctor.terminal import say

    directory = meant(run, base)
    kept = load(directory)
    head_gone = _end_head(directory)
    with lines_of(kept) as transports:
        hosts = stop_hosts(kept, transports)
    state = directory.state()
    for host in hosts:
        if host.problem is not None:
            say(f"{escape(host.host)}: could not be reached ({escape(host.problem)})")
            after = "what runs there goes on until it is stopped: give this again"
            if len(hosts) > 1:
                seconds = 2 * kept.limits.lifeline
                after += f". Its guardian ends it when it has heard nothing of the other hosts for {seconds:.0f} s"
            if not state.detached:
                after = f"its guardian ends the job {kept.limits.lifeline:.0f} s after it last heard of the launch"
            say(f"  {after}")
        elif host.left:
            say(f"{escape(host.host)}: {escape(', '.join(host.left))} did not end (a process that the kernel holds?)")
        else:
            say(
                f"{escape(host.host)}: "
                + (f"stopped {escape(', '.join(host.ended))}" if host.ended else "nothing runs any more")
            )
    well = head_gone and not any(host.problem or host.left for host in hosts)
    if well:
        _note(directory)
    return 0 if well else UNEXAMINED


def _end_head(directory: RunDirectory) -> bool:
    """Tell the run's head to stop everything; returns whether it is gone."""
    import os
    import signal
    import time

    from dsdoctor.escape import escape
    from dsdoctor.terminal import say

    holder = directory.holder()
    if holder is None:
        return True
    directory.write_bytes("stop", b"told to\n")  # seen by a head on another machine, too
    if holder.host is None:  # proven to be the one that holds the run
        os.kill(holder.pid, signal.SIGINT if directory.state().detached else signal.SIGTERM)
    where = f" on {holder.host}" if holder.host else ""
    say(f"told its head (process {holder.pid}{escape(where)}) to stop")
    until = time.monotonic() + HEAD_SECONDS
    while time.monotonic() < until:
        if directory.holder() is None:
            directory.remove("stop")
            return True
        time.sleep(0.1)
    if holder.host is not None:
        say(f"it did not end within {HEAD_SECONDS:.0f} s; give this on {escape(holder.host)}")
        return False
    say(f"it did not end within {HEAD_SECONDS:.0f} s, and is killed")
    if directory.holder() == holder:
        os.kill(holder.pid, signal.SIGKILL)
    return True


def _note(directory: RunDirectory) -> None:
    """Write down that the run was stopped, unless somebody carries it out again already."""
    import contextlib

    import msgspec

    from dsdoctor.yamlfile import FileError

    with contextlib.suppress(FileError), directory.locked():
        state = directory.state()
        if state.status != "running":
            return
        for stage in state.stages:
            if stage.status == "running":
                state = state.with_stage(msgspec.structs.replace(stage, status="interrupted"))
        directory.save_state(msgspec.structs.replace(state, status="interrupted"))
        directory.remove("stop")
