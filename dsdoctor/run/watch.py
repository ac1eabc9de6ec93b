"""Watching a stage while it goes on: its progress, what is wrong with its numbers, and whether it stands still.

When a run is called stalled. A line may stand for hundreds of steps, an evaluation or a checkpoint may print nothing
for minutes, so silence alone accuses nobody:

1. Any line of any rank, and any movement of a bar, is life. Only when all are silent for ten times the usual time
   between two lines that tell a step (at least 60 s; beyond 75 s that much twice and ten minutes more, since half an
   hour between two lines needs no five hours to be missed) is something done.
   Before the first such line, while data is prepared and kernels are compiled, half an hour must pass; until there
   have been three, ten minutes.
2. Then the ranks are looked at, twice within seconds. One whose Python stack moves, that reads or writes, or that
   computes without waiting for others works: an evaluation, a checkpoint, rank 0 tokenizing. Nothing is called a
   stall; that ranks wait for one that works is said once, and the patience doubles. One that still computes after
   thirty times the limit, in no evaluation or checkpoint, is a loop without an end: a stall after all.
3. What looks the same whether it works or waits (a rank busy on its GPU, a host that cannot be looked at) gets three
   times the limit, and ten times where the names of its functions are those of an evaluation or a checkpoint.
4. A stall is a warning, and its end is told, too; with `stop_on_stall` the run is stopped as a failure.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from dsdoctor.hosts.transport import Transport
from dsdoctor.logs.stacks import Standing, judge
from dsdoctor.logs.training import Remark, Training
from dsdoctor.plan.model import LaunchPlan, StagePlan
from dsdoctor.run.events import Noted, Progressed, Show
from dsdoctor.run.guard import spool_of
from dsdoctor.run.progress_file import write_progress
from dsdoctor.run.stacks import Looking, Seen, keep, missing_ranks
from dsdoctor.run.stage_end import Watching

USUAL_TIMES = 10
SHORTEST = 60.0  # seconds
LONG_GAP_MORE = 600.0
BEFORE_FIRST_STEP, BEFORE_THIRD_STEP = 1800.0, 600.0
NO_STEP_BUT_LINES = 1800.0  # at least; lines that tell no step hold it off no longer
TOLD_STALLS = 5
TICK = 0.5
TRACE_LINES = 500
_TRACE = re.compile(r'(?:Current thread|Thread) 0x[0-9a-f]+|  File ".{1,500}", line \d+ in |Stack \(most recent call ')

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
        self._sign = 0.0  # when anything was last heard of a rank
        self._ticked = self._shown = self._written = 0.0
        self._looking: Looking | None = None
        self._by_steps = False  # whether that look is made although lines come, because no step does
        self._patience = {False: 1.0, True: 1.0}  # by the same; how many times the limit must pass
        self._stalled: tuple[str, int | None] | None = None  # to whom the stall was said
        self._stalls = 0
        self._waiting_told = False
        self._traces: dict[tuple[str, int | None], list[str]] = {}
        self._file_failed = self._ending = False

    def taken_over(self, now: float) -> None:
        """Take it that the ranks have been running for a while under guardians of their own."""
        self._begin(now)

    def started(self, host: str, pid: int, now: float) -> None:
        """Take the process below which the ranks of a host are."""
        self._roots[host] = pid
        self._begin(now)

    def line(self, host: str, rank: int | None, text: str, now: float) -> None:
        """Take a line."""
        if self._looking is not None and _TRACE.match(text):
            traces = self._traces.setdefault((host, rank), [])
            if len(traces) < TRACE_LINES:
                traces.append(text)
            return  # asked for by ourselves: no sign of life
        self._begin(now)
        if self._ending:
            return
        silence, step_at = now - self._silent_since(), self.training.last_step_at
        self._sign, self._patience[False] = now, 1.0
        for remark in self.training.feed(host, rank, text, now):
            self._remark(remark)
        stepped = self.training.last_step_at != step_at
        if stepped:
            self._patience[True] = 1.0
        if self._stalled is not None and (stepped or (self.training.last_step_at is None and rank is not None)):
            self._over(silence)

    def bar(self, host: str, rank: int | None, text: str, now: float) -> None:
        """Take the present state of a bar."""
        self.line(host, rank, text, now)

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
            silent=now - self._sign,
            stalled=self._stalled is not None,
        )

    # --- saying

    def _begin(self, now: float) -> None:
        if self._began is None:
            self._began = self._sign = now

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

    def limit(self) -> float:
        """Seconds of silence after which the ranks are looked at."""
        given, gap = self.watching.stall_after, self.training.usual_gap()
        if self.training.last_step_at is None:
            return given * USUAL_TIMES if given else BEFORE_FIRST_STEP
        if given:
            return given
        if gap is None:
            return BEFORE_THIRD_STEP
        return max(SHORTEST, min(USUAL_TIMES * gap, 2 * gap + LONG_GAP_MORE))

    def _look_if_silent(self, now: float) -> None:
        behind = self.training.behind(now, self.limit())
        if behind is not None:
            self._remark(behind)
        if self._stalled is not None:
            return
        silent = now - self._sign >= self.limit() * self._patience[False]
        step_at = self.training.last_step_at
        most = max(NO_STEP_BUT_LINES, 10 * self.limit()) * self._patience[True]
        overdue = step_at is not None and now - step_at >= most
        if (silent or overdue) and self._stalls < TOLD_STALLS:
            self._traces.clear()
            self._by_steps = not silent
            self._looking = Looking(self.plan, self.transports, self._roots, self._spools)

    def _take_look(self, now: float) -> None:
        assert self._looking is not None
        seen = self._looking.result()
        if seen is None:
            return
        self._looking = None
        heard = self.training.last_step_at if self._by_steps else self._sign
        if heard is not None and heard > seen.began:
            return  # it went on meanwhile
        standing = judge(seen.looks, tuple(seen.hidden))
        patience = self._patience[self._by_steps]
        if standing.kind == "working" or (standing.kind == "waiting" and patience < standing.patience):
            self._patience[self._by_steps] = patience * 2
            if standing.kind == "waiting" and not self._waiting_told:
                self._waiting_told = True
                behind = standing.behind or seen.looks[0]
                text = f"no step for {now - self._silent_since():.0f} s, but it is no stall: {standing.text}"
                self._say(behind.host, behind.rank, text, warning=False)
        elif patience < standing.patience:
            self._patience[self._by_steps] = standing.patience
        else:
            self._stall(now, seen, standing)

    def _stall(self, now: float, seen: Seen, standing: Standing) -> None:
        behind = standing.behind
        host, rank = (behind.host, behind.rank) if behind is not None else (self.plan.hosts[0].name, None)
        self._stalled = (host, rank)
        self._stalls += 1
        kept = self._keep(seen)
        at, gap = self.training.step, self.training.usual_gap()
        text = f"stalled: no step for {now - self._silent_since():.0f} s"
        if at is not None:
            text += f" after step {at}"
        if gap is not None:
            text += f" (usually {gap:.1f} s)" if gap < 100 else f" (usually {gap:.0f} s)"
        words = "; ".join([standing.text, *missing_ranks(self.plan, seen)])
        text = f"{text}: {words}"
        self._say(host, rank, text)
        self.show(Noted(kept, warning=False))
        if any("py-spy" in look.problem for look in seen.looks):
            problem = next(look.problem for look in seen.looks if "py-spy" in look.problem)
            self.show(Noted(f"no Python stacks: {problem}. Install it there: pip install py-spy"))
        if self.watching.stop_on_stall:
            self.stop = (host, text)

    def _silent_since(self) -> float:
        """When the last step was, or the last line where steps are not told."""
        step_at = self.training.last_step_at
        return self._sign if step_at is None else step_at

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
