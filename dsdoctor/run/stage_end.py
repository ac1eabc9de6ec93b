"""How a stage ended, on each host and as a whole, and what is said of that in one sentence."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field

from dsdoctor.plan.model import StagePlan

# torchrun's report on a worker that ended: "failed (exitcode: -9) local_rank: 1 (pid: 4711) of binary: …"
_WORKER_FAILED = re.compile(r"failed \(exitcode: (-?\d+)\) local_rank: (\d+) \(pid: \d+\)")


@dataclass(frozen=True)
class Watching:
    """How a run is watched. `stall_after`: seconds, instead of ten times the usual; 0 calls nothing a stall."""

    stall_after: float | None = None
    stop_on_stall: bool = False


@dataclass(frozen=True)
class Limits:
    """Times in seconds. `settle`: how long other hosts may still say why they end before they are told to.

    `retries`: how often a stage that failed may be tried again, where its verdict says that this may help.
    """

    lifeline: float = 20.0
    grace: float = 5.0
    greeting: float = 40.0
    settle: float = 1.5
    ranks_up: float = 120.0  # until all ranks of a host are started (torchrun: until its rendezvous, which has its own)
    meeting: float = 30.0  # until every host reaches the port on which rank 0 listens
    watching: Watching = field(default_factory=Watching)
    retries: int = 0
    spool: int = 256 << 20  # bytes of lines that a host keeps of a stage for a head that is away; the oldest go first


@dataclass
class HostEnd:
    """How a host's part of a stage ended."""

    code: int | None = None  # None: no exit was reported, the host was lost
    lost: str | None = None
    gone: bool = False  # a lost one whose guardian is proven to be gone: nothing is left there to be stopped
    closed: bool = False  # the line to its guardian ended by itself: the host may well be reached
    not_started: str | None = None  # why its guardian could start nothing
    stopped: str | None = None  # its guardian ended the job without being told to, and why
    failed_ranks: dict[int, int] = field(default_factory=dict)  # global rank -> exit code
    cleared: bool = False  # its guardian has taken away what it kept, all of which is here
    held_up: str | None = None  # it kept the others waiting, and how


@dataclass(frozen=True)
class StageEnd:
    """How a stage ended on all hosts. `first` is the host whose failure was seen first."""

    hosts: dict[str, HostEnd]
    first: str | None
    interrupted: bool
    seconds: float
    stalled: str | None = None  # it was stopped because it stood still, and how

    @property
    def well(self) -> bool:
        """Whether every host ended with exit code 0."""
        return not self.interrupted and all(end.code == 0 and end.stopped is None for end in self.hosts.values())

    def exit_codes(self) -> dict[str, int]:
        """The exit codes by host; a lost host counts as -1."""
        return {name: -1 if end.code is None else end.code for name, end in self.hosts.items()}


def failure_of(stage: StagePlan, end: StageEnd) -> str:
    """One sentence: which stage, which host first, what it ended with."""
    if end.stalled is not None:
        return f"stage {stage.name} was stopped: it {end.stalled}"
    blaming = [name for name, host in end.hosts.items() if host.stopped is not None]
    if end.first is None and blaming:
        return (
            f"stage {stage.name} failed: the guardian of {blaming[0]} ended the job ({end.hosts[blaming[0]].stopped})"
        )
    if end.first is None:
        codes = ", ".join(f"{name}: {code}" for name, code in end.exit_codes().items() if code)
        return f"stage {stage.name} failed ({codes})"
    first = end.hosts[end.first]
    if first.held_up is not None:
        return f"stage {stage.name} failed: {first.held_up}"
    if first.stopped is not None:
        return f"stage {stage.name} failed: the guardian of {end.first} ended the job ({first.stopped})"
    if first.not_started is not None:
        return f"stage {stage.name} failed: nothing could be started on {end.first}: {first.not_started}"
    if first.lost is not None:
        return f"stage {stage.name} failed: {end.first} was lost ({first.lost})"
    if first.failed_ranks:
        rank, code = next(iter(first.failed_ranks.items()))
        return f"stage {stage.name} failed: rank {rank} on {end.first} {ended_how(code)}"
    if first.code is not None and first.code < 0:
        return f"stage {stage.name} failed: {end.first} was ended by {signal_name(-first.code)}"
    return f"stage {stage.name} failed: {end.first} ended with exit code {first.code}"


class Failures:
    """Which hosts failed, and when; the first is the one that failed earliest, not the one that was heard first.

    `first` is the one that a head before this one has found.
    """

    def __init__(self, first: str | None = None) -> None:
        self._at = {} if first is None else {first: float("-inf")}

    def add(self, name: str, at: float) -> bool:
        """Take a host's failure, at a moment of this process's time.monotonic(); whether it is the first heard of."""
        only = not self._at
        self._at.setdefault(name, at)
        return only

    def accuse(self, name: str) -> None:
        """Take it that a failure of others that is known came of this host."""
        if self._at:
            self._at[name] = float("-inf")

    @property
    def first(self) -> str | None:
        """The host that failed first."""
        return min(self._at, key=lambda name: self._at[name]) if self._at else None


def failed_worker(text: str) -> tuple[int, int] | None:
    """The local rank and the exit code of which a line of torchrun's report tells."""
    found = _WORKER_FAILED.search(text)
    return (int(found[2]), int(found[1])) if found else None


def killed_words(name: str, end: HostEnd, oom_kills: int | None) -> Iterator[tuple[int, str]]:
    """For every rank that was killed outright, whether its host's kernel did it for want of memory."""
    for rank, code in end.failed_ranks.items():
        if code != -signal.SIGKILL:
            continue
        said = "dsdoctor: killed by SIGKILL"
        if oom_kills:
            said += f"; the kernel of {name} killed {oom_kills} for want of memory meanwhile"
        elif oom_kills == 0:
            said += f"; the kernel of {name} killed none for want of memory meanwhile"
        yield rank, said


def ended_how(code: int) -> str:
    """What became of a process, by its exit code."""
    return f"was killed by {signal_name(-code)}" if code < 0 else f"ended with exit code {code}"


def signal_name(number: int) -> str:
    """SIGKILL for 9; `signal 99` for what has no name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
