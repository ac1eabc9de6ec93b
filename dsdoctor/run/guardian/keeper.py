"""The keeper: holds a guardian, and finishes its work when it is killed outright."""

import contextlib
import ctypes
import os
import signal
from types import FrameType
from typing import IO, Any, Dict, Optional

from dsdoctor.run.guardian import cgroup, process_table
from dsdoctor.run.guardian.owner import Guardian
from dsdoctor.run.guardian.programs import remove_pipes
from dsdoctor.run.guardian.spool import Spool, encoded, read_json


def keep(order: Dict[str, Any], control: Optional[IO[bytes]], output: Optional[IO[bytes]]) -> int:
    """Fork the guardian, wait for it, end what it leaves; returns the exit code to end with.

    `control` and `output` are the line to the head, None for a detached one. No thread may run yet.
    """
    process_table.become_subreaper()
    keeper = process_table.identity(os.getpid())
    guardian = os.fork()
    if guardian == 0:
        code = 70  # EX_SOFTWARE, for what is not foreseen
        try:
            code = _guard(order, control, output, keeper)
        finally:
            os._exit(code)  # threads may sit in a blocked read; nothing is left to save

    def hand_on(number: int, _: Optional[FrameType]) -> None:
        with contextlib.suppress(OSError):
            os.kill(guardian, number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, hand_on)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    status = _wait_for(guardian)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) != 70:
        return os.WEXITSTATUS(status)
    _finish(order, status, output)
    return 1


def _guard(
    order: Dict[str, Any], control: Optional[IO[bytes]], output: Optional[IO[bytes]], keeper: Dict[str, Any]
) -> int:
    """The guardian's life: it is told with TERM when its keeper is gone."""
    made = Guardian(order, control, output)
    signal.signal(signal.SIGTERM, lambda *_: made.ask_to_stop("its keeper was killed"))  # until it has handlers itself
    ctypes.CDLL(None, use_errno=True).prctl(process_table.PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != keeper["pid"]:
        return 0  # it was killed before anything began
    return made.run(keeper)


def _wait_for(guardian: int) -> int:
    """Wait for the guardian, collecting what else ends; a guardian that was stopped is woken: it watches others."""
    while True:
        pid, status = os.waitpid(-1, os.WUNTRACED)
        if pid != guardian:
            continue
        if not os.WIFSTOPPED(status):
            return status
        os.kill(guardian, signal.SIGCONT)


def _finish(order: Dict[str, Any], status: int, output: Optional[IO[bytes]]) -> None:
    """Say what became of the guardian, end what it left, and report the exit in its place."""
    if os.WIFSIGNALED(status):
        how, code = "was killed (%s)" % signal_name(os.WTERMSIG(status)), -os.WTERMSIG(status)
    else:
        how, code = "ended with exit code %d" % os.WEXITSTATUS(status), 1
    spool = Spool(order["spool"], order.get("spool_limit", 0)) if order.get("spool") else None
    why = "its guardian " + how
    _tell({"e": "stopping", "why": why}, spool, output)  # before the other hosts' ranks fail of it
    process_table.end_descendants(order["grace_seconds"])
    remove_pipes(order)
    cgroup.remove((read_json(order.get("spool", ""), "identity") or {}).get("cgroup"))
    left = len(process_table.descendants())
    frame = {"e": "exit", "code": code, "stopped": why, "left": left, "oom_kills": None}
    _tell(frame, spool, output)
    if spool is not None:
        spool.write_end(frame)


def _tell(frame: Dict[str, Any], spool: Optional[Spool], output: Optional[IO[bytes]]) -> None:
    """A frame to the spool and to the head; the guardian may have been killed in the middle of a line."""
    line = encoded(frame) if spool is None else spool.write(frame)
    if output is not None:
        with contextlib.suppress(OSError, ValueError):
            output.write(b"\n" + line)
            output.flush()


def signal_name(number: int) -> str:
    """SIGKILL for 9."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return "signal %d" % number
