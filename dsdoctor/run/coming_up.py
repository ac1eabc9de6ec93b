"""Whether the ranks of all hosts come up and reach the place where they meet, in minutes and not in torch's half hour.

torchrun's rendezvous has a limit of its own (the plan sets it); ranks that are started without it wait for the others
in `init_process_group`, which gives up after 10 to 30 minutes. A program is not judged: only it knows when it meets.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dsdoctor.plan.model import LaunchPlan, StagePlan


class ComingUp:
    """Follows the guardians' words about the start of a stage. Times are of one monotonic clock, in seconds.

    Args:
        ranks_limit: how long a host may take until all its ranks have been started.
        meeting_limit: how long a host may fail to reach the port that rank 0 listens on.
    """

    def __init__(self, plan: LaunchPlan, stage: StagePlan, ranks_limit: float, meeting_limit: float) -> None:
        self.plan = plan
        self.ranks_limit, self.meeting_limit = ranks_limit, meeting_limit
        self._not_up = {command.host for command in stage.commands if command.ranks or command.rank_logs}
        self._started: dict[str, float] = {}
        self._listening: float | None = None
        self._problems: dict[str, str] = {}  # of hosts that do not reach the place, what they are told

    def take(self, name: str, frame: Mapping[str, Any], now: float) -> None:
        """Take a frame of a host's guardian."""
        kind = frame.get("e")
        if kind == "started":
            self._started.setdefault(name, now)
        elif kind == "ranks_up":
            self._not_up.discard(name)
        elif kind == "meet" and frame.get("listening"):
            self._listening = now
        elif kind == "meet" and frame.get("reached"):
            self._problems.pop(name, None)
        elif kind == "meet":
            self._problems[name] = str(frame.get("problem"))

    def problem(self, now: float) -> tuple[str, str] | None:
        """The host that keeps the others waiting for too long, and what is said of it."""
        for name in sorted(self._not_up & set(self._started)):
            if now - self._started[name] > self.ranks_limit:
                ranks = "rank was" if self.plan.host(name).slots == 1 else "ranks were"
                return name, (
                    f"the launcher of {name} runs, but its {ranks} not started within {self.ranks_limit:.0f} s; "
                    f"{self.plan.host(name).python} there may hang on a file system that does not answer"
                )
        if self._listening is None or now - self._listening <= self.meeting_limit:
            return None
        for name, problem in sorted(self._problems.items()):
            place = f"{self.plan.master_addr}:{self.plan.master_port}"
            return name, (
                f"{name} does not reach {place}, where rank 0 has been waiting for {self.meeting_limit:.0f} s "
                f"({problem}). Something between the hosts keeps the port closed: dsdoctor check --network tries which"
            )
        return None
