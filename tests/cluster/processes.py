"""Processes inside a host of the little cluster, started, seen and signalled from outside."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Joins the host's control group first, so that freezing the host freezes this too.
JOIN = 'echo $$ >"$0" && exec nsenter "$@"'


class CommandFailedError(AssertionError):
    """A command inside a host ended with another exit code than 0; the message carries both of its outputs."""

    def __init__(self, host: str, result: subprocess.CompletedProcess[str]) -> None:
        super().__init__(
            f"{host}: {result.args} ended with {result.returncode}\n"
            f"--- standard output\n{result.stdout}\n--- standard error\n{result.stderr}"
        )
        self.result = result


@dataclass(frozen=True)
class ProcessInside:
    """A process as the host's own `ps` would show it."""

    pid: int  # inside the host
    parent: int
    argv: tuple[str, ...]  # empty for a zombie

    def __str__(self) -> str:
        return f"{self.pid} {' '.join(self.argv)}"


class HostProcess(subprocess.Popen[str]):
    """A process started inside a host. `pid` is nsenter's, outside; `pid_inside` is what the host calls it.

    `send_signal`, `terminate` and `kill` reach the process itself: a signal to nsenter would stop at nsenter.
    """

    def __init__(
        self, pid1: int, group: Path, argv: Sequence[str], env: Mapping[str, str], cwd: str, **streams: Any
    ) -> None:
        self.argv_inside = tuple(argv)
        enter = ["-m", "-u", "-i", "-n", "-p", "-t", str(pid1), "--", "env", "-i", "-C", cwd]
        super().__init__(
            ["sh", "-c", JOIN, str(group / "cgroup.procs"), *enter, *(f"{k}={v}" for k, v in env.items()), *argv],
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
            **streams,
        )

    @property
    def pid_inside(self) -> int:
        """The process id inside the host."""
        pid = pid_inside(self._child())
        if pid is None:
            raise ProcessLookupError(f"{' '.join(self.argv_inside)}: has ended")
        return pid

    def send_signal(self, sig: int) -> None:
        """Send a signal to the process inside; nothing happens when it has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._child(), sig)

    def signal_group(self, sig: int) -> None:
        """Send a signal to its whole process group, as Ctrl-C in a terminal does."""
        group = [pid for pid in pids_in(Path("/proc")) if pid != self.pid and _process_group(pid) == self.pid]
        for pid in group:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, sig)

    def end(self) -> None:
        """Kill the whole process group, nsenter included, and reap."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            super().wait(timeout=10)
        for stream in (self.stdin, self.stdout, self.stderr):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()

    def _child(self) -> int:
        """The process id, outside, of nsenter's child; it takes a moment to appear."""
        deadline = time.monotonic() + 5
        while self.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text(encoding="utf-8").split()
                if children:
                    return int(children[0])
            time.sleep(0.002)
        raise ProcessLookupError(f"{' '.join(self.argv_inside)}: has ended or did not start")


def run_inside(
    name: str, process: HostProcess, given: str | None, timeout: float, check: bool
) -> subprocess.CompletedProcess[str]:
    """Wait for a process with its outputs.

    Raises:
        CommandFailedError: `check`, and the exit code is not 0.
        subprocess.TimeoutExpired: it took longer than `timeout` seconds; it and its group have been killed.
    """
    try:
        out, err = process.communicate(given, timeout=timeout)
    except BaseException:
        process.end()
        raise
    result = subprocess.CompletedProcess(list(process.argv_inside), process.returncode, out, err)
    if check and result.returncode != 0:
        raise CommandFailedError(name, result)
    return result


def processes_of(pid1: int) -> list[ProcessInside]:
    """Every process beside PID 1 in its namespace, read through its own /proc: a frozen or cut-off host answers too."""
    table = Path(f"/proc/{pid1}/root/proc")
    found = []
    for entry in sorted(pids_in(table) - {1}):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            argv = (table / str(entry) / "cmdline").read_bytes().rstrip(b"\0")
            stat = (table / str(entry) / "stat").read_text(encoding="utf-8", errors="replace")
            words = tuple(word.decode("utf-8", "replace") for word in argv.split(b"\0")) if argv else ()
            found.append(ProcessInside(entry, int(stat.rpartition(")")[2].split()[1]), words))
    return found


def pid_inside(pid: int) -> int | None:
    """What a process, given by its id outside, is called in its own namespace; None when it has ended."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("NSpid:"):
                return int(line.split()[-1])
    return None


def pids_in(table: Path) -> set[int]:
    """The process ids that a /proc shows."""
    return {int(entry.name) for entry in table.iterdir() if entry.name.isdecimal()}


def _process_group(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return None
