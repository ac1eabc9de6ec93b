"""When ranks that say nothing are looked at, and when what is seen is called a stall: one rule for every watcher.

A line may stand for hundreds of steps, an evaluation or a checkpoint may print nothing for minutes, so silence alone
accuses nobody:

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

Python 3.8: guardians apply it on their hosts.
"""

from __future__ import annotations

import re
from typing import Protocol

from dsdoctor.logs.stacks import Standing

USUAL_TIMES = 10
SHORTEST = 60.0  # seconds
LONG_GAP_MORE = 600.0
BEFORE_FIRST_STEP, BEFORE_THIRD_STEP = 1800.0, 600.0
NO_STEP_BUT_LINES = 1800.0  # at least; lines that tell no step hold it off no longer
TOLD_STALLS = 5
# Lines of a faulthandler, or of what it prints of a thread: asked for by who looks, so no sign of life.
FROM_FAULTHANDLER = re.compile(
    r'(?:Current thread|Thread) 0x[0-9a-f]+|  File ".{1,500}", line \d+ in |Stack \(most recent call '
)


class Pace(Protocol):
    """How a training goes on; times in seconds of the watcher's clock."""

    @property
    def step(self) -> int | None:
        """The step of the rank that is furthest."""

    @property
    def last_step_at(self) -> float | None:
        """When any rank last said that a step was done."""

    def usual_gap(self) -> float | None:
        """Seconds from one line that tells a step to the next, usually."""


class Standstill:
    """The silence of all ranks of a stage. `stall_after`: seconds, instead of ten times the usual; 0: never a stall."""

    def __init__(self, stall_after: float | None) -> None:
        self.given = stall_after
        self.sign = 0.0  # when anything was last heard of a rank
        self._by_steps = False  # whether the ranks are looked at although lines come, because no step does
        self._patience = {False: 1.0, True: 1.0}  # by the same; how many times the limit must pass

    def heard(self, now: float, stepped: bool) -> None:
        """Take a sign of life."""
        self.sign, self._patience[False] = now, 1.0
        if stepped:
            self._patience[True] = 1.0

    def limit(self, pace: Pace) -> float:
        """Seconds of silence after which the ranks are looked at."""
        gap = pace.usual_gap()
        if pace.last_step_at is None:
            return self.given * USUAL_TIMES if self.given else BEFORE_FIRST_STEP
        if self.given:
            return self.given
        if gap is None:
            return BEFORE_THIRD_STEP
        return max(SHORTEST, min(USUAL_TIMES * gap, 2 * gap + LONG_GAP_MORE))

    def silent_since(self, pace: Pace) -> float:
        """When the last step was, or the last line where steps are not told."""
        return self.sign if pace.last_step_at is None else pace.last_step_at

    def due(self, pace: Pace, now: float) -> bool:
        """Whether the ranks are to be looked at."""
        if self.given == 0:
            return False
        silent = now - self.sign >= self.limit(pace) * self._patience[False]
        most = max(NO_STEP_BUT_LINES, 10 * self.limit(pace)) * self._patience[True]
        overdue = pace.last_step_at is not None and now - pace.last_step_at >= most
        self._by_steps = not silent
        return silent or overdue

    def went_on(self, pace: Pace, began: float) -> bool:
        """Whether there was life again after a look began."""
        heard = pace.last_step_at if self._by_steps else self.sign
        return heard is not None and heard > began

    def is_stall(self, standing: Standing) -> bool:
        """Whether what was seen is a stall; where it is none, or none yet, more time must pass until the next look."""
        patience = self._patience[self._by_steps]
        if standing.kind == "working" or (standing.kind == "waiting" and patience < standing.patience):
            self._patience[self._by_steps] = patience * 2
            return False
        if patience < standing.patience:
            self._patience[self._by_steps] = standing.patience
            return False
        return True

    def stall_words(self, pace: Pace, now: float) -> str:
        """How long there has been no step, after which one, and what is usual."""
        text, at, gap = f"stalled: no step for {now - self.silent_since(pace):.0f} s", pace.step, pace.usual_gap()
        if at is not None:
            text += f" after step {at}"
        if gap is not None:
            text += f" (usually {gap:.1f} s)" if gap < 100 else f" (usually {gap:.0f} s)"
        return text
