"""Drawing copies while they go on: on a terminal one line a host, elsewhere a line when something is done."""

from __future__ import annotations

import shutil
import threading
import time

from dsdoctor.escape import escape
from dsdoctor.run.events import Copying
from dsdoctor.terminal import StatusLine, say

STILL_SECONDS = 30.0  # after which a long copy is heard of again where no lines are drawn over


class CopyView:
    """Takes :class:`Copying` events, from any thread."""

    def __init__(self, status: StatusLine | None = None) -> None:
        """`status` is the line, or lines, that are drawn over themselves."""
        self._status = status or StatusLine()
        self._under_way: dict[str, Copying] = {}
        self._done: set[tuple[str, str]] = set()
        self._told: dict[str, float] = {}
        self._lock = threading.Lock()

    def __call__(self, event: Copying) -> None:
        """Draw an event."""
        with self._lock:
            if event.percent >= 100:
                self._finished(event)
            else:
                self._under_way[event.host] = event
                self._remind(event)
            self._draw()

    def close(self) -> None:
        """Take the lines away."""
        self._under_way.clear()
        self._status.clear()

    def _finished(self, event: Copying) -> None:
        self._under_way.pop(event.host, None)
        if (event.host, event.what) not in self._done:
            self._done.add((event.host, event.what))
            self._status.clear()
            say(f"  {event.what} is on {escape(event.host)}")

    def _remind(self, event: Copying) -> None:
        """Without a terminal: what is waited for at once, how far a copy is every half minute."""
        if self._status.shown:
            return
        now = time.monotonic()
        if event.waiting:
            if self._told.get(event.host) is None:
                say(f"  {_line(event)}")
            self._told[event.host] = now
        elif now - self._told.setdefault(event.host, now) >= STILL_SECONDS:
            self._told[event.host] = now
            say(f"  {_line(event)}")

    def _draw(self) -> None:
        if not self._under_way:
            self._status.clear()
            return
        width = max(map(len, self._under_way))
        lines = [f"  {_line(event, width)}" for event in self._under_way.values()]
        room = max(2, shutil.get_terminal_size().lines - 2)
        if len(lines) > room:
            lines = [*lines[: room - 1], f"  and {len(lines) - room + 1} hosts more"]
        self._status.show_lines(lines)


def _line(event: Copying, width: int = 0) -> str:
    name = escape(event.host).ljust(width)
    if event.waiting:
        return f"{name}  waits for {escape(event.waiting)}"
    return f"{name}  {event.what} {event.percent:3} %  {event.rate}".rstrip()
