"""What the head of a detached run runs (`python -m dsdoctor.cli._head`); its order comes over standard input."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from pathlib import Path

from dsdoctor.cli._failures import guarded


def main() -> int:
    """Carry the run out, or go on with it; returns the exit code."""
    from dsdoctor.cli._launching import ended
    from dsdoctor.cli._run_view import RunView
    from dsdoctor.escape import escape
    from dsdoctor.run.directory import RunDirectory
    from dsdoctor.run.events import Event, HostsStarted
    from dsdoctor.run.execute import execute
    from dsdoctor.run.kept import lines_to, load, with_secrets
    from dsdoctor.run.outcome import Manner
    from dsdoctor.run.reach import stop_when_reached
    from dsdoctor.terminal import say

    order = json.loads(sys.stdin.read())
    up = order["up"]
    # Given with `&`, a shell's child ignores this one, by which `dsdoctor stop` asks; the terminal's end is nothing.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    began = time.monotonic()
    run = RunDirectory(Path(order["run"]))
    with run.locked(order["lock"]):
        kept = load(run)
        plan = with_secrets(kept.plan, order["secrets"])
        transports = lines_to(kept)
        view = RunView(len(plan.hosts))

        def show(event: Event) -> None:
            view(event)
            if isinstance(event, HostsStarted):
                with contextlib.suppress(OSError):  # nobody waits any more
                    os.write(up, b"up\n")

        manner = Manner(True, tuple(order["chosen"]), order["copy"])
        try:
            outcome = execute(plan, transports, run, show, limits=kept.limits, manner=manner)
        finally:
            view.close()
            for transport in transports.values():
                transport.close()
    code = ended(plan, run, outcome, time.monotonic() - began)
    if outcome.unsure and outcome.attempt:
        os.close(up)  # who waited for this run waits no longer
        hosts = ", ".join(outcome.unsure)
        say(f"the run is over; this process stays to end what still runs on {escape(hosts)} as soon as it is reached")
        for host in stop_when_reached(kept, lambda: lines_to(kept), outcome.unsure, outcome.attempt):
            say(f"{escape(host.host)} is reached again: " + ("stopped" if host.ended else "nothing runs any more"))
    return code


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    guarded(main)
