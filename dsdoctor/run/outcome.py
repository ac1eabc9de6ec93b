"""How a launch is carried out, and how it ended: the values on both sides of `execute`."""

from __future__ import annotations

from dataclasses import dataclass, field

from dsdoctor.report.model import Report
from dsdoctor.run.directory import Status


@dataclass(frozen=True)
class Outcome:
    """How a launch ended. `failure` says it in one sentence."""

    status: Status
    stage: str | None = None
    host: str | None = None
    rank: int | None = None
    failure: str | None = None
    report: Report | None = None
    unsure: tuple[str, ...] = ()  # detached hosts that were lost: what runs there goes on
    attempt: str | None = None  # at which stage that is, as the spools call it: `1-first.2`
    sync_seconds: float = 0.0
    stage_seconds: dict[str, float] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """0 done, 1 a stage failed, 130 interrupted."""
        return {"done": 0, "failed": 1, "interrupted": 130}.get(self.status, 1)


@dataclass(frozen=True)
class Manner:
    """How a plan is carried out.

    `detach`: guardians go on without this head, and it leaves them when it is told to end. `chosen` are the stages to
    carry out, though they be done; without them the first that is not done, and all after it. `copy`: the code is
    copied to the hosts before; another head takes over a run with the code that it began with.
    """

    detach: bool = False
    chosen: tuple[str, ...] = ()
    copy: bool = True
