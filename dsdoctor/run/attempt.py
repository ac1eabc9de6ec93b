"""One attempt at a stage: begun here or taken over, attached or detached, and what a signal means for its head."""

from __future__ import annotations

import secrets
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from dsdoctor.plan.model import LaunchPlan, StagePlan
from dsdoctor.run.guard import follow_order, order_for, spool_of
from dsdoctor.run.stage_end import Limits
from dsdoctor.run.taken import Taken


@dataclass(frozen=True)
class Attempt:
    """Which attempt at a stage this is, and whether its guardians go on without a head.

    With `taken_over` they do already: nothing is started, they are followed from there on. `keep` is told at most once
    a second how far a detached attempt was taken over; it may raise FileError.
    """

    number: int = 1
    detach: bool = False
    taken_over: Taken | None = None
    keep: Callable[[Taken], None] | None = None
    key: str = field(default_factory=lambda: secrets.token_hex(32), repr=False)  # its guardians' own

    def order(self, plan: LaunchPlan, stage: StagePlan, host: str, offset: int, limits: Limits) -> dict[str, Any]:
        """What a host's end is told: to guard, or to follow one that guards already, from an offset of its spool on."""
        if self.taken_over is None:
            words = (limits.lifeline, limits.grace, self.number, self.detach, self.key, limits.watching, limits.spool)
            return order_for(plan, stage, host, *words)
        return follow_order(spool_of(plan.host(host), stage, self.number), offset, limits.lifeline)

    def what_goes_on(self, run: str) -> str:
        """What becomes of a host that cannot be reached any more."""
        if self.detach:
            return f"what runs there goes on until the head, or dsdoctor stop {run}, reaches it again"
        return "its guardian ends the job when it hears nothing more"


class Left(BaseException):
    """The head was told to go (its machine shuts down) while guardians go on without it."""


@contextmanager
def signals_as_interrupt(detached: bool) -> Iterator[None]:
    """SIGTERM and a closed terminal end a run as Ctrl-C does: every host is stopped first.

    The head of a detached run leaves instead: its machine may be about to start anew, which the run is to survive.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise Left if detached else KeyboardInterrupt

    # One that is ignored stays so: `nohup dsdoctor launch … &` is meant to survive its terminal.
    numbers = [each for each in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(each) is not signal.SIG_IGN]
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
