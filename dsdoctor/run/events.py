"""What happens during a run, as values: `execute` says them, the command line draws them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dsdoctor.report.model import Report


@dataclass(frozen=True)
class StageStarted:
    """A stage begins."""

    name: str
    index: int
    total: int


@dataclass(frozen=True)
class StageSkipped:
    """A stage was done by an earlier launch of this run, and its outputs are there."""

    name: str
    index: int
    total: int


@dataclass(frozen=True)
class StageDone:
    """A stage ended well, its outputs were looked at."""

    name: str
    seconds: float


@dataclass(frozen=True)
class LineSeen:
    """A line of a rank, or of a host's launcher (`rank` None)."""

    host: str
    rank: int | None
    text: str
    error_stream: bool = False


@dataclass(frozen=True)
class Noted:
    """Something worth saying: a host lost, a stop, what a host shares."""

    text: str
    warning: bool = False


@dataclass(frozen=True)
class Copying:
    """How far the copy to a host is."""

    host: str
    percent: int


@dataclass(frozen=True)
class Diagnosed:
    """What `diagnose` makes of the log of the stage that failed."""

    report: Report


Event = StageStarted | StageSkipped | StageDone | LineSeen | Noted | Copying | Diagnosed
Show = Callable[[Event], None]
