"""What was started is ended, whatever happens: the process groups of programs, and the workers."""

from __future__ import annotations

import os
import time

from .plain import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

RUNNING: list[int] = []  # process groups to end when this process is told to stop
STARTING: list[int] = []  # not empty while a process is started; then the signals that came meanwhile
WORKING: list[int] = []  # the workers' process ids


def end_group(group: int) -> None:
    """Kill a process group that this process started."""
    try:
        os.killpg(group, signal.SIGKILL)
    except OSError:
        pass  # gone already


def stop_working(signum: int, frame: Any) -> None:
    """End on a signal, in the parent and in the workers: nothing that was started here stays behind."""
    if STARTING:
        STARTING.append(signum)  # its number is not known yet: `started` comes back to this
        return
    for group in RUNNING:
        end_group(group)
    left = list(WORKING)  # not waited for yet, so the numbers are still their own
    for kind in (signal.SIGTERM, signal.SIGKILL):
        for pid in left:
            os.kill(pid, kind)
        until = time.monotonic() + 1.0
        while left and time.monotonic() < until:
            left = [pid for pid in left if os.waitpid(pid, os.WNOHANG)[0] == 0]
            time.sleep(0.005)
    os._exit(128 + signum)


def started() -> None:
    """The process is on its list now; a signal that came in between takes effect."""
    signals = STARTING[1:]
    del STARTING[:]
    if signals:
        stop_working(signals[0], None)


def ending(status: int) -> str:
    """How a process ended, in words."""
    if not os.WIFSIGNALED(status):
        return "ended with status %d" % os.WEXITSTATUS(status)
    import signal as named

    signum = os.WTERMSIG(status)
    names = {int(item): item.name for item in named.Signals}
    return "was killed by signal %d (%s)" % (signum, names.get(signum, "unknown"))
