"""What most hosts have, and which ones have something else: how checks over several hosts say who differs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from dsdoctor.report.layout import fold

# So many hosts are named one by one, more of them as ranges.
_NAMED = 3


def common(seen: Mapping[str, str]) -> str | None:
    """The value that most hosts have; None where two are equally frequent, or there is no host."""
    counted = Counter(seen.values()).most_common(2)
    if not counted or (len(counted) > 1 and counted[0][1] == counted[1][1]):
        return None
    return counted[0][0]


def strays(seen: Mapping[str, str]) -> list[str]:
    """The hosts that differ from the others; all of them where no value is the most frequent."""
    usual = common(seen)
    return [host for host, value in seen.items() if value != usual]


def told(seen: Mapping[str, str]) -> str:
    """Who has what, the most frequent first: "2.1.2 on a, b; 2.5.1 on c"."""
    counted = Counter(seen.values())
    order = sorted(counted, key=lambda value: -counted[value])
    return "; ".join(f"{value} on {_names([host for host in seen if seen[host] == value])}" for value in order)


def _names(hosts: list[str]) -> str:
    return ", ".join(hosts) if len(hosts) <= _NAMED else fold(hosts)
