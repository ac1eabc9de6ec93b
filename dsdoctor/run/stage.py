"""One stage on all hosts: start the guardians together, follow them, stop all at the first failure.

Nothing here knows names of processes: a host is told to stop, or its line is dropped, and its guardian ends what it
started. A host that falls silent is lost after `Limits.lifeline` seconds; its own guardian, hearing nothing either,
stops by itself.
"""

from __future__ import annotations

import contextlib
import queue
import re
import signal
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from dsdoctor.hosts.transport import Transport
from dsdoctor.plan.model import LaunchPlan, StagePlan
from dsdoctor.run.events import LineSeen, Noted, Show
from dsdoctor.run.guard import Frame, Guard, order_for

# torchrun's report on a worker that ended: "failed (exitcode: -9) local_rank: 1 (pid: 4711) of binary: …"
WORKER_FAILED = re.compile(r"failed \(exitcode: (-?\d+)\) local_rank: (\d+) \(pid: \d+\)")


@dataclass(frozen=True)
class Limits:
    """Times in seconds. `settle`: how long other hosts may still say why they end before they are told to."""

    lifeline: float = 20.0
    grace: float = 5.0
    greeting: float = 40.0
    settle: float = 1.5


@dataclass
class HostEnd:
    """How a host's part of a stage ended."""

    code: int | None = None  # None: no exit was reported, the host was lost
    lost: str | None = None
    stopped: str | None = None  # its guardian ended the job without being told to, and why
    failed_ranks: dict[int, int] = field(default_factory=dict)  # global rank -> exit code, as torchrun reported


@dataclass(frozen=True)
class StageEnd:
    """How a stage ended on all hosts. `first` is the host whose failure was seen first."""

    hosts: dict[str, HostEnd]
    first: str | None
    interrupted: bool
    seconds: float

    @property
    def well(self) -> bool:
        """Whether every host ended with exit code 0."""
        return not self.interrupted and all(end.code == 0 and end.stopped is None for end in self.hosts.values())

    def exit_codes(self) -> dict[str, int]:
        """The exit codes by host; a lost host counts as -1."""
        return {name: -1 if end.code is None else end.code for name, end in self.hosts.items()}


class StageLogs:
    """The log files of a stage: one a host and rank, and one merged with `host:rank| ` before every line."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.failed: str | None = None  # why nothing more is written
        self._open: dict[Path, IO[str]] = {}

    def __enter__(self) -> StageLogs:
        self.folder.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._open.values():
            with contextlib.suppress(OSError):
                file.close()

    def write(self, host: str, rank: int | None, text: str) -> None:
        """Add a line to the host's and to the merged log."""
        self._append(self.folder / host / ("agent.log" if rank is None else f"rank{rank}.log"), f"{text}\n")
        self._append(self.folder / "merged.log", f"{host}:{'-' if rank is None else rank}| {text}\n")

    def _append(self, path: Path, text: str) -> None:
        if self.failed is not None:
            return
        try:
            file = self._open.get(path)
            if file is None:
                path.parent.mkdir(parents=True, exist_ok=True)
                file = self._open[path] = path.open("a", encoding="utf-8", errors="backslashreplace", buffering=1)
            file.write(text)
        except OSError as error:  # a full disk here is no reason to end a training there
            self.failed = f"{path} cannot be written ({error.strerror}): the rest of this stage is not logged"


class StageRun:
    """A stage being carried out on all hosts. Ctrl-C and SIGTERM stop it everywhere first."""

    def __init__(
        self,
        plan: LaunchPlan,
        stage: StagePlan,
        transports: Mapping[str, Transport],
        logs: StageLogs,
        *,
        show: Show,
        limits: Limits,
    ) -> None:
        self.plan, self.stage, self.logs = plan, stage, logs
        self.show, self.limits = show, limits
        self.frames: queue.Queue[tuple[str, Frame]] = queue.Queue(maxsize=10_000)
        self.guards = {
            host.name: Guard(host, transports[host.name], lambda name, frame: self.frames.put((name, frame)))
            for host in plan.hosts
        }
        self.ends = {host.name: HostEnd() for host in plan.hosts}
        self.running = set(self.ends)
        self.first: str | None = None
        self.stop_at: float | None = None  # when hosts that still run are told to stop
        self.drop_at: float | None = None  # when lines that are still open are dropped
        self.interrupted = False
        self.looked = 0.0
        self.told: set[str] = set()  # hosts that were told to stop

    def run(self) -> StageEnd:
        """Start the guardians, follow them to the end, and return how it ended."""
        began = time.monotonic()
        over = threading.Event()
        threading.Thread(target=self._keep_alive, args=(over,), daemon=True).start()
        try:
            for name, guard in self.guards.items():
                order = order_for(self.plan, self.stage, name, self.limits.lifeline, self.limits.grace)
                guard.start(order, self.plan.setup)
            while self.running:
                try:
                    self._turn()
                except KeyboardInterrupt:
                    self._interrupt()
        finally:
            over.set()
            for guard in self.guards.values():
                guard.hang_up()
            until = time.monotonic() + 2
            for guard in self.guards.values():
                guard.close(max(0.0, until - time.monotonic()))
        if self.logs.failed is not None:
            self.show(Noted(self.logs.failed, warning=True))
        return StageEnd(self.ends, self.first, self.interrupted, time.monotonic() - began)

    def _keep_alive(self, over: threading.Event) -> None:
        """Ping every host from a thread of its own: a disk or a screen that is slow here must end nothing there."""
        while not over.wait(1):
            for name in tuple(self.running):
                self.guards[name].ping()

    def _turn(self) -> None:
        """Take what came, and do what time asks for."""
        try:
            name, frame = self.frames.get(timeout=0.1)
            self._take(name, frame)
            for _ in range(500):
                self._take(*self.frames.get_nowait())
        except queue.Empty:
            pass
        now = time.monotonic()
        if now - self.looked >= 1:
            self.looked = now
            self._find_lost(now)
        if self.stop_at is not None and now >= self.stop_at:
            self.stop_at = None
            self._stop_running(now)
        if self.drop_at is not None and now >= self.drop_at:
            for name in list(self.running):
                self._lose(name, "it did not confirm the stop; its guardian ends the job when it hears nothing more")

    def _take(self, name: str, frame: Frame) -> None:
        kind = frame.get("e")
        end = self.ends[name]
        if kind == "line":
            self._line(name, frame)
        elif kind == "exit":
            end.code = int(frame["code"])
            reason = frame.get("stopped")
            if reason is not None and name not in self.told:
                end.stopped = str(reason)
                self._agent_line(name, f"dsdoctor: the guardian of {name} ended the job: {reason}")
            self._explain_kills(name, frame.get("oom_kills"))
            self._ended(name, end.stopped is not None or (end.code != 0 and reason is None))
        elif kind == "error":
            end.code = 127
            self._agent_line(name, f"dsdoctor: {frame.get('text')}")
            self._ended(name, True)
        elif kind == "lost" or (kind == "closed" and name in self.running):
            self._lose(name, str(frame.get("text")))

    def _line(self, name: str, frame: Frame) -> None:
        text, rank = str(frame.get("x", "")), frame.get("r")
        rank = rank if isinstance(rank, int) else None
        self.logs.write(name, rank, text)
        if rank is None and (found := WORKER_FAILED.search(text)):
            first = self.plan.host(name).first_rank
            self.ends[name].failed_ranks.setdefault(first + int(found[2]), int(found[1]))
            self._failed(name)
        self.show(LineSeen(name, rank, text, frame.get("s") == "e"))

    def _explain_kills(self, name: str, oom_kills: int | None) -> None:
        """Write down, for every rank that was killed outright, whether its host's kernel did it for want of memory."""
        for rank, code in self.ends[name].failed_ranks.items():
            if code != -signal.SIGKILL:
                continue
            said = "dsdoctor: killed by SIGKILL"
            if oom_kills:
                said += f"; the kernel of {name} killed {oom_kills} for want of memory meanwhile"
            elif oom_kills == 0:
                said += f"; the kernel of {name} killed none for want of memory meanwhile"
            self.logs.write(name, rank, said)
            self.show(LineSeen(name, None, f"rank {rank}: {said}", True))

    def _agent_line(self, name: str, text: str) -> None:
        self.logs.write(name, None, text)
        self.show(LineSeen(name, None, text, True))

    def _ended(self, name: str, failed: bool) -> None:
        self.running.discard(name)
        if failed:
            self._failed(name)

    def _lose(self, name: str, why: str) -> None:
        if name not in self.running:
            return
        self.running.discard(name)
        self.ends[name].lost = why
        self._agent_line(name, f"dsdoctor: lost {name}: {why}")
        self._failed(name)

    def _failed(self, name: str) -> None:
        """Remember the first failure; the other hosts get a moment to say why they end, then they are stopped."""
        if self.first is None and not self.interrupted:
            self.first = name
            self.stop_at = time.monotonic() + self.limits.settle

    def _stop_running(self, now: float) -> None:
        if not self.running:
            return
        self.show(Noted(f"stopping {', '.join(sorted(self.running))}", warning=True))
        self.told |= self.running
        for name in self.running:
            self.guards[name].stop()
        self.drop_at = now + self.limits.grace + 5

    def _interrupt(self) -> None:
        """The first Ctrl-C stops every host and waits for them; the second drops the lines at once."""
        now = time.monotonic()
        if self.interrupted:
            self.drop_at = now
            return
        self.interrupted = True
        self.show(Noted("interrupted: stopping every host (again to leave at once)", warning=True))
        self._stop_running(now)

    def _find_lost(self, now: float) -> None:
        for name in list(self.running):
            guard = self.guards[name]
            if guard.greeted and now - guard.heard > self.limits.lifeline:
                self._lose(name, f"no sign of life for {self.limits.lifeline:.0f} s")
            elif not guard.greeted and not guard.ended and now - guard.heard > self.limits.greeting:
                self._lose(name, f"no guardian came up within {self.limits.greeting:.0f} s")
