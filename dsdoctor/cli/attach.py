"""`dsdoctor attach`: follow a run that was launched with --detach, from any shell."""

from __future__ import annotations

import click

from dsdoctor.cli._options import with_options
from dsdoctor.cli._runs import run_options


@click.command("attach")
@with_options(*run_options())
def attach(run: str | None, base: str) -> int:
    """Follow a run that goes on by itself.

    Ctrl-C leaves it running. RUN is its name or its path, the newest without it. A run whose head is gone (its
    machine was started anew) gets one again, which goes on where the other was. The exit code is the run's.
    """
    from dsdoctor.cli._detached import Growing, come_back, exit_code_of, follow
    from dsdoctor.cli._runs import meant, standing
    from dsdoctor.escape import escape
    from dsdoctor.terminal import say

    directory = meant(run, base)
    now = standing(directory)
    log = Growing(directory.path / "head.log")
    if now.orphaned and now.state.detached:
        return come_back(directory)
    if now.orphaned:
        say(f"the launch of {escape(directory.name)} was killed, and its hosts have stopped: launch again to go on")
        return 1
    if now.head is None:
        log.show(whole=False)
        say(f"{escape(directory.name)} has ended: {now.state.status}")
        return exit_code_of(directory)
    where = f" on {now.elsewhere}" if now.elsewhere else ""
    if not now.state.detached:
        say(f"{escape(directory.name)} is carried out by process {now.head}{escape(where)}; its lines are in the logs:")
        say(f"dsdoctor logs {escape(directory.name)} --follow")
        return 0
    say(f"following {escape(directory.name)}, process {now.head}{escape(where)}; Ctrl-C leaves it running")
    return follow(directory, log)
