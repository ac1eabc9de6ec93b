"""What happens during a run, as values: `execute` says them, the command line draws them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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
class HostsStarted:
    """The stage's command was started on every host."""

    name: str
    hosts: tuple[str, ...]


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
class RankFailed:
    """A rank ended with an error (`how`: in words), said as soon as its host tells of it."""

    host: str
    rank: int
    how: str


@dataclass(frozen=True)
class Noted:
    """Something worth saying: a host lost, a stop, what a host shares."""

    text: str
    warning: bool = False


@dataclass(frozen=True)
class Copying:
    """How far the copy to a host is: of the code, the data or the model, and how fast."""

    host: str
    percent: int
    what: str = "code"
    rate: str = ""  # as rsync says it: "11.05MB/s"
    waiting: str = ""  # for whom, when another sync has the host's folder


@dataclass(frozen=True)
class Progressed:
    """How far a stage is, as its own lines tell; None where they do not. Said at most once a second."""

    stage: str
    index: int
    stages: int
    step: int | None
    steps: int | None
    within_epoch: bool
    epoch: float | None
    loss: float | None
    learning_rate: float | None
    speed: float | None  # steps a second
    seconds_left: float | None
    hosts: dict[str, tuple[int, float | None]]  # step and speed of hosts whose ranks tell theirs
    silent: float  # seconds since the last line of any rank
    stalled: bool


@dataclass(frozen=True)
class Diagnosed:
    """What `diagnose` makes of the log of the stage that failed."""

    report: Report


_OfStages = StageStarted | StageSkipped | HostsStarted | StageDone | RankFailed
Event = _OfStages | LineSeen | Noted | Progressed | Copying | Diagnosed
Show = Callable[[Event], None]
