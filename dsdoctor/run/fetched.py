"""What the hosts keep of a run for a head that was away, taken away once a head has all of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from dsdoctor.hosts.transport import Transport
from dsdoctor.plan.model import LaunchPlan
from dsdoctor.run.kept import Kept
from dsdoctor.run.reach import clear
from dsdoctor.run.stage_end import Limits, StageEnd

TIMEOUT = 20.0  # seconds for a host's answer


@dataclass
class Fetched:
    """Which attempts' spools need not be kept, by host: those of which this head has every line on its disk."""

    _attempts: dict[str, set[str]] = field(default_factory=dict)

    def add(self, attempt: str, end: StageEnd, logged: bool) -> None:
        """Take an attempt that has ended (`1-first.2`); `logged` says that all lines could be written here."""
        for name, host in end.hosts.items():
            if host.cleared:
                continue
            fetched = self._attempts.setdefault(name, set())
            if logged and host.code is not None:
                fetched.add(attempt)

    def take_away(
        self,
        plan: LaunchPlan,
        limits: Limits,
        transports: Mapping[str, Transport],
        before: Collection[str],
        *,
        everything: bool,
    ) -> tuple[str, ...]:
        """Remove those spools, or all of the run; returns the hosts that keep some.

        `before` are the hosts that kept some before. A host that cannot be reached keeps its own; nobody waits for it
        beyond `TIMEOUT`.
        """
        asked = {host.name: self._attempts.get(host.name, set()) for host in plan.hosts}
        if not before and not self._attempts:
            return ()  # the guardians have done it themselves
        answers = clear(Kept(plan, limits=limits), transports, None if everything else asked, TIMEOUT)
        left = {answer.host for answer in answers if answer.problem is not None or answer.left}
        unasked = (set(before) | set(self._attempts)) - {answer.host for answer in answers}
        return tuple(host.name for host in plan.hosts if host.name in left | unasked)
