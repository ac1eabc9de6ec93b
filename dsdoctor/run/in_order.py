"""What several hosts said while no head was there, put into the order in which it was said, as their spools are read.

A head that takes over reads one spool quicker than another; a merged log in the order of arrival would show the effect
before its cause, and the verdict is about the earliest cause. The times are those of the guardians' monotonic clocks,
each translated into this process's by `Guard`: what the hosts' clocks say of the time of day counts nowhere.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

MOST = 200_000  # frames that wait at most; beyond them the order is that of arrival
PATIENCE = 5.0  # seconds for a host from which nothing comes
CAUGHT_UP = frozenset({"exit", "error", "gone", "lost", "closed"})

Frame = dict[str, Any]


class InOrder:
    """Holds frames back until every host has caught up or has one waiting; then they pass at once."""

    def __init__(self, hosts: Iterable[str]) -> None:
        self._held: dict[str, deque[Frame]] = {name: deque() for name in hosts}
        self._behind = set(self._held)
        self._count = 0
        self._moved: float | None = None

    def put(self, name: str, frame: Frame) -> None:
        """Take a frame of a host."""
        if frame.get("caught_up") or frame.get("e") in CAUGHT_UP:
            self._behind.discard(name)
        self._held[name].append(frame)
        self._count += 1

    def take(self, now: float) -> Iterator[tuple[str, Frame]]:
        """The frames whose turn it is, each with its host; `now` is time.monotonic()."""
        self._moved = now if self._moved is None else self._moved
        while self._count:
            waited_for = {name for name in self._behind if not self._held[name]}
            if waited_for and self._count < MOST and now - self._moved < PATIENCE:
                return
            self._behind -= waited_for
            name = min((name for name, frames in self._held.items() if frames), key=self._made)
            self._count -= 1
            self._moved = now
            yield name, self._held[name].popleft()

    def _made(self, name: str) -> float:
        """When a host's next frame was made; one without a time does not hold up what is behind it."""
        happened = self._held[name][0].get("happened")
        return float(happened) if isinstance(happened, int | float) else float("-inf")
