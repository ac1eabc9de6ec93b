"""Watching a stage while it goes on: its progress, what is wrong with its numbers, and whether it stands still.

When a run is called stalled is told in :mod:`dsdoctor.logs.standstill`. A stall is a warning, and its end is told, too;
with `stop_on_stall` the run is stopped as a failure. What guardians found while there was no head is taken over.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from dsdoctor.hosts.transport import Transport
from dsdoctor.logs.stacks import Standing, judge
from dsdoctor.logs.standstill import FROM_FAULTHANDLER, TOLD_STALLS, Standstill
from dsdoctor.logs.training import Remark, Training
from dsdoctor.plan.model import LaunchPlan, StagePlan
from dsdoctor.run.events import Noted, Progressed, Show
from dsdoctor.run.guard import spool_of
from dsdoctor.run.guardian.looking import Parts
from dsdoctor.run.progress_file import write_progress
from dsdoctor.run.stacks import Looking, Seen, keep, missing_ranks
from dsdoctor.run.stage_end import Watching

TICK = 0.5
LATE = 5.0  # seconds
TRACE_LINES = 500

Log = Callable[[str, "int | None", str], None]


class Watch:
    """One stage under watch: fed with lines and bars, asked to look at the clock by `tick`. Nothing here waits."""

    def __init__(
        self,
        plan: LaunchPlan,
        stage: StagePlan,
        transports: Mapping[str, Transport],
        folder: Path,
        *,
        attempt: int,
        show: Show,
        log: Log,
        watching: Watching,
    ) -> None:
        self.plan, self.stage, self.transports, self.folder = plan, stage, transports, folder
        self._spools = {host.name: spool_of(host, stage, attempt) for host in plan.hosts}
        self.show, self.log, self.watching = show, log, watching
        self.training = Training()
        self.stop: tuple[str, str] | None = None  # the host and the reason, once the run is to be stopped
        self._roots: dict[str, int] = {}  # the process that the guardian of a host started
        self._began: float | None = None
        self.silence = Standstill(watching.stall_after)
        self._ticked = self._shown = self._written = 0.0
        self._looking: Looking | None = None
        self._stalled: tuple[str, int | None] | None = None  # to whom the stall was said
        self._stalls = 0
        self._waiting_told = False
        self._traces: dict[tuple[str, int | None], list[str]] = {}
        self._file_failed = self._ending = self._late = False
        self._parts = Parts()
        self._arrived = 0.0  # when a line last came; `_late`: which was old by then, so that more of them follow

    def taken_over(self, now: float) -> None:
        """Take it that the ranks have been running for a while under guardians of their own."""
        self._begin(now)

    def started(self, host: str, pid: int, now: float) -> None:
        """Take the process below which the ranks of a host are."""
        self._roots[host] = pid
        self._begin(now)

    def line(self, host: str, rank: int | None, text: str, now: float, at: float | None = None) -> None:
        """Take a line; `at` is when it was printed, where that may be long ago."""
        self._arrived, self._late = now, at is not None and now - at > LATE
        now = now if at is None else at
        if self._looking is not None and FROM_FAULTHANDLER.match(text):
            traces = self._traces.setdefault((host, rank), [])
            if len(traces) < TRACE_LINES:
                traces.append(text)
            return  # asked for by ourselves: no sign of life
        self._begin(now)
        if self._ending:
            return
        silence, step_at = now - self.silence.silent_since(self.training), self.training.last_step_at
        for remark in self.training.feed(host, rank, text, now):
            self._remark(remark)
        stepped = self.training.last_step_at != step_at
        self.silence.heard(now, stepped)
        if self._stalled is not None and (stepped or (self.training.last_step_at is None and rank is not None)):
            self._over(silence)

    def bar(self, host: str, rank: int | None, text: str, now: float, at: float | None = None) -> None:
        """Take the present state of a bar."""
        self.line(host, rank, text, now, at)

    def guardian_said(self, host: str, frame: Mapping[str, Any]) -> None:
        """Take what guardians found while there was no head: a stall, its end, and what was seen of a host's ranks."""
        if frame["e"] == "look":
            answer = self._parts.take(host, frame)
            if answer is not None:
                seen = Seen(time.monotonic())
                seen.take(host, answer)
                self.show(Noted(self._keep(seen)))
        elif frame["e"] == "stall":
            rank = frame.get("r")
            self._stalled = str(frame.get("host")), rank if isinstance(rank, int) else None
            self._say(*self._stalled, str(frame.get("text")))
            if frame.get("stop") and self.stop is None:
                self.stop = self._stalled[0], str(frame.get("text"))
        elif self._stalled is not None:
            self._over(float(frame.get("seconds") or 0))

    def ends(self) -> None:
        """Take it that the hosts have been told to stop: what is printed from now on says nothing of the training."""
        self._ending = True

    def tick(self, now: float) -> None:
        """Do what time asks for: tell and write the progress, look at ranks that are silent."""
        if now - self._ticked < TICK or self._began is None:
            return
        self._ticked = now
        if self._ending:
            self._looking = None
        elif self._looking is not None:
            self._take_look(now)
        elif self.watching.stall_after != 0:
            self._look_if_silent(now)
        if now - self._shown >= 1:
            self._shown = now
            if self.training.step is not None or self.training.loss is not None:
                self.show(self.progress(now))
        if now - self._written >= 2:
            self._written = now
            self._write(now)

    def close(self, now: float) -> None:
        """Write the last progress."""
        if self._began is not None:
            self._write(now)

    def progress(self, now: float) -> Progressed:
        """How far the stage is."""
        training = self.training
        return Progressed(
            stage=self.stage.name,
            index=self.stage.index,
            stages=len(self.plan.stages),
            step=training.step,
            steps=training.total,
            within_epoch=training.within_epoch,
            epoch=training.epoch,
            loss=training.loss,
            learning_rate=training.learning_rate,
            speed=training.speed(now),
            seconds_left=training.seconds_left(now),
            hosts=training.hosts(now),
            silent=now - self.silence.sign,
            stalled=self._stalled is not None,
        )

    # --- saying

    def _begin(self, now: float) -> None:
        if self._began is None:
            self._began = self.silence.sign = now

    def _over(self, silence: float) -> None:
        assert self._stalled is not None
        (host, rank), self._stalled = self._stalled, None
        self._say(host, rank, f"the stall is over after {silence:.0f} s", warning=False)

    def _remark(self, remark: Remark) -> None:
        where = f" (rank {remark.rank} on {remark.host})" if remark.rank is not None else f" ({remark.host})"
        self._say(remark.host, remark.rank, remark.text + ("" if remark.kind == "behind" else where))

    def _say(self, host: str, rank: int | None, text: str, *, warning: bool = True) -> None:
        self.log(host, rank, f"dsdoctor: {text}")
        self.show(Noted(text, warning=warning))

    def _write(self, now: float) -> None:
        try:
            write_progress(self.folder, self.progress(now))
        except OSError as error:
            if not self._file_failed:
                self._file_failed = True
                text = f"{self.folder}/progress.json cannot be written ({error.strerror}); the run goes on"
                self.show(Noted(text, warning=True))

    # --- stalls

    def _look_if_silent(self, now: float) -> None:
        if self._late and now - self._arrived < LATE:
            return
        behind = self.training.behind(now, self.silence.limit(self.training))
        if behind is not None:
            self._remark(behind)
        if self._stalled is None and self._stalls < TOLD_STALLS and self.silence.due(self.training, now):
            self._traces.clear()
            self._looking = Looking(self.plan, self.transports, self._roots, self._spools)

    def _take_look(self, now: float) -> None:
        assert self._looking is not None
        seen = self._looking.result()
        if seen is None:
            return
        self._looking = None
        if self.silence.went_on(self.training, seen.began):
            return
        standing = judge(seen.looks, tuple(seen.hidden))
        if self.silence.is_stall(standing):
            self._stall(now, seen, standing)
        elif standing.kind == "waiting" and not self._waiting_told:
            self._waiting_told = True
            behind = standing.behind or seen.looks[0]
            text = f"no step for {now - self.silence.silent_since(self.training):.0f} s, but it is no stall"
            self._say(behind.host, behind.rank, f"{text}: {standing.text}", warning=False)

    def _stall(self, now: float, seen: Seen, standing: Standing) -> None:
        behind = standing.behind
        host, rank = (behind.host, behind.rank) if behind is not None else (self.plan.hosts[0].name, None)
        self._stalled = (host, rank)
        self._stalls += 1
        kept = self._keep(seen)
        words = "; ".join([standing.text, *missing_ranks(self.plan, seen)])
        text = f"{self.silence.stall_words(self.training, now)}: {words}"
        self._say(host, rank, text)
        self.show(Noted(kept, warning=False))
        if any("py-spy" in look.problem for look in seen.looks):
            problem = next(look.problem for look in seen.looks if "py-spy" in look.problem)
            self.show(Noted(f"no Python stacks: {problem}. Install it there: pip install py-spy"))
        if self.watching.stop_on_stall:
            self.stop = (host, text)

    def _keep(self, seen: Seen) -> str:
        folder = self.folder / "stacks"
        try:
            keep(seen, folder, self._traces)
        except OSError as error:
            return f"the stacks could not be kept in {folder} ({error.strerror})"
        with suppress(ValueError):
            folder = folder.relative_to(Path.cwd())
        recorders = f", and {len(seen.recorders)} flight recorder files" if seen.recorders else ""
        return f"the stacks of {len(seen.texts)} ranks{recorders} are in {folder}"


def clock() -> float:
    """The clock that `line` and `tick` are given, in seconds."""
    return time.monotonic()
