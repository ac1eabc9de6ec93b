"""One step of the deep trial on one host: its program under a guardian, followed to its end, never longer than allowed.

The guardian ends everything that the step started, at the step's limit, when it is told, and when the head is gone.
"""

from __future__ import annotations

import contextlib
import json
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from dsdoctor.hosts.transport import Transport
from dsdoctor.plan.model import HostPlan
from dsdoctor.run.deep_trial import BOOT, MARK
from dsdoctor.run.guard import Frame, Guard
from dsdoctor.run.stage_end import signal_name

LIFELINE = 15.0  # seconds without a word after which either end takes the other for lost
GREETING = 30.0  # seconds until a guardian must have come up
GRACE = 5.0  # seconds between TERM and KILL
SETTLE = 1.5  # seconds in which other hosts may still say why they end
FIRST, LAST = 30, 60  # lines kept of what each rank prints
LINE = 500  # characters kept of a line
TOLD = 10_000  # answers kept of a step

Told = dict[str, Any]
_STOPPED = "told to end"


@dataclass(frozen=True)
class Step:
    """What is run: a step of deep_trial.py with its order, the longest it may take and be silent, in seconds."""

    name: str  # as it is told: "torch", "host all-reduce"
    action: str  # as deep_trial.py names it
    order: Mapping[str, Any]
    limit: float
    silence: float | None = None


class Printed:
    """The first and the last lines of each rank."""

    def __init__(self) -> None:
        self._first: dict[int | None, list[str]] = {}
        self._last: dict[int | None, deque[str]] = {}

    def add(self, rank: int | None, text: str) -> None:
        """Keep a line, or let it take an older one's place."""
        if not text.strip():
            return
        first = self._first.setdefault(rank, [])
        if len(first) < FIRST:
            first.append(text[:LINE])
        else:
            self._last.setdefault(rank, deque(maxlen=LAST)).append(text[:LINE])

    def of(self, rank: int | None) -> tuple[str, ...]:
        """What a rank printed."""
        return (*self._first.get(rank, ()), *self._last.get(rank, ()))

    def all(self) -> dict[int | None, tuple[str, ...]]:
        """What each rank printed, torchrun (None) last."""
        ranks = sorted((rank is None, rank or 0, rank) for rank in self._first)
        return {rank: self.of(rank) for _, _, rank in ranks}


@dataclass
class StepEnd:
    """How a step ended. `error` None: with exit code 0, and not by us."""

    told: list[Told] = field(default_factory=list)
    printed: Printed = field(default_factory=Printed)
    seconds: float = 0.0
    error: str | None = None
    lost: bool = False  # the host itself is gone, or cannot start anything
    out_of_time: bool = False
    first: bool = False  # of the hosts that did it together, the first to fail


class Together:
    """What the hosts of a trial share: whether it was interrupted, and which of them failed first in a common step."""

    def __init__(self, over: threading.Event) -> None:
        self.over = over
        self.failed_at: float | None = None
        self._lock = threading.Lock()

    def fail(self) -> bool:
        """Note a failure; True for the first one."""
        with self._lock:
            first = self.failed_at is None
            self.failed_at = self.failed_at or time.monotonic()
        return first

    def why_stop(self, now: float) -> str | None:
        """Why a step must not go on."""
        if self.over.is_set():
            return "interrupted"
        if self.failed_at is not None and now - self.failed_at > SETTLE:
            return "ended because another host had failed"
        return None


def run_step(
    host: HostPlan,
    transport: Transport,
    step: Step,
    *,
    env: Mapping[str, str | None],
    setup: Sequence[str],
    together: Together,
    hear: Callable[[Told], None] = lambda told: None,
) -> StepEnd:
    """Carry a step out. Takes at most GREETING and `step.limit` seconds, and some for the end; never raises."""
    return _Running(host, transport, step, together, hear).run(env, setup)


class _Running:
    """A step under way."""

    def __init__(
        self, host: HostPlan, transport: Transport, step: Step, together: Together, hear: Callable[[Told], None]
    ) -> None:
        self.step, self.together, self.hear = step, together, hear
        self.frames: queue.Queue[Frame] = queue.Queue(maxsize=10_000)
        self.guard = Guard(host, transport, lambda _, frame: self.frames.put(frame))
        self.end = StepEnd()
        self.begun = time.monotonic()
        self.started: float | None = None
        self.spoke = self.begun
        self.stopped: tuple[str, float] | None = None  # why, and until when its end is waited for
        self.ended = False

    def run(self, env: Mapping[str, str | None], setup: Sequence[str]) -> StepEnd:
        """Follow the step to its end."""
        source = resources.files("dsdoctor.run").joinpath("deep_trial.py").read_text(encoding="utf-8")
        order = json.dumps(self.step.order)
        argv = [self.guard.host.python, "-u", "-c", BOOT, source, self.step.action, order]
        pinged = 0.0
        environment = {
            "env": {name: value for name, value in env.items() if value is not None},
            "unset": [name for name, value in env.items() if value is None],
        }
        self.guard.start(
            {"argv": argv, "cwd": "/", **environment, "lifeline_seconds": LIFELINE, "grace_seconds": GRACE}, setup
        )
        try:
            while not self.ended:
                with contextlib.suppress(queue.Empty):
                    self._take(self.frames.get(timeout=0.1))
                now = time.monotonic()
                if now - pinged >= 1:
                    pinged = now
                    self.guard.ping()
                if not self.ended:
                    self._watch(now)
        finally:
            self.guard.hang_up()
            threading.Thread(target=self._drain, daemon=True).start()
            self.guard.close(1.0)
        self.end.seconds = round(time.monotonic() - (self.started or self.begun), 3)
        if self.end.error is not None and not self.together.over.is_set():
            self.end.first = self.together.fail()
        return self.end

    def _drain(self) -> None:
        """Take what is still sent, so that its sender does not wait before a full queue."""
        with contextlib.suppress(queue.Empty):
            while True:
                self.frames.get(timeout=5)

    def _take(self, frame: Frame) -> None:
        kind = frame.get("e")
        if kind == "started":
            self.started = self.spoke = time.monotonic()
        elif kind == "line":
            self._line(frame)
        elif kind == "exit":
            self._finish(self._how(frame))
        elif kind == "error":
            self._finish(str(frame.get("text")))
        elif kind in ("lost", "closed"):
            self.end.lost = True
            self._finish(str(frame.get("text") or "the connection ended"))

    def _line(self, frame: Frame) -> None:
        text, rank = str(frame.get("x", "")), frame.get("r")
        if not text.startswith(MARK):
            self.end.printed.add(rank if isinstance(rank, int) else None, text)
            return
        try:
            told = json.loads(text[len(MARK) :])
        except ValueError:
            return
        if isinstance(told, dict) and len(self.end.told) < TOLD:
            self.spoke = time.monotonic()
            self.end.told.append(told)
            self.hear(told)

    def _how(self, frame: Frame) -> str | None:
        """How the step ended, in words; None for well."""
        if self.stopped is not None:
            return self.stopped[0]
        if frame.get("stopped"):
            return f"its guardian ended it: {frame['stopped']}"
        code = frame.get("code")
        if code == 0:
            return None
        if isinstance(code, int) and code < 0:
            killed = " for want of memory" if frame.get("oom_kills") else ""
            return f"ended by {signal_name(-code)}{killed}"
        return f"ended with exit code {code}"

    def _finish(self, error: str | None) -> None:
        self.ended = True
        self.end.error = error

    def _watch(self, now: float) -> None:
        """Tell the step to end when it must, and give the host up when it says nothing more."""
        if self.stopped is not None and now > self.stopped[1]:
            self.end.lost = True
            self._finish(f"{self.stopped[0]}, and did not say that it has ended")
        elif self.guard.greeted and now - self.guard.heard > LIFELINE:
            self.end.lost = True
            self._finish(f"no sign of life for {LIFELINE:.0f} s")
        elif not self.guard.greeted and now - self.begun > GREETING:
            self.end.lost = True
            self._finish(f"nothing came up within {GREETING:.0f} s")
        elif self.stopped is None and (why := self._why_stop(now)) is not None:
            self.stopped = (why, now + GRACE + 5)
            self.guard.stop()

    def _why_stop(self, now: float) -> str | None:
        if self.started is not None:
            silence = self.step.silence
            if now - self.started > self.step.limit:
                self.end.out_of_time = True
                return f"did not end within {self.step.limit:.0f} s"
            if silence is not None and now - self.spoke > silence:
                self.end.out_of_time = True
                return f"did not go on for {silence:.0f} s"
        return self.together.why_stop(now)
