"""What the screen shows of ranks other than 0: a traceback while it is printed, and who failed first with which words.

Nothing else of theirs is shown, since ranks say the same things; all of it is in the logs.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from dataclasses import replace

from dsdoctor.run.events import LineSeen, RankFailed

LAST, LENGTH = 10, 2000  # lines kept of a rank, and characters of each
RANKS = 4096  # of which lines are kept
SHOWN = 2  # tracebacks of a stage that are shown while they are printed
LONGEST = 60  # lines of one
_BEGINS = re.compile(r"\s*Traceback \(most recent call last\):")
# What a traceback is made of: indented lines, the sentence between two chained ones, and no more.
_GOES_ON = re.compile(r"\s|$|Traceback \(|During handling of the above|The above exception was the direct")

Stream = tuple[str, "int | None"]


class OtherRanks:
    """Takes the lines of all ranks of a stage, and gives those to show of the ones that are not shown anyway."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """A stage begins, or another attempt at it."""
        self._last: dict[Stream, deque[LineSeen]] = {}
        self._open: dict[Stream, int] = {}  # lines of the traceback that is being printed
        self._shown: set[Stream] = set()  # whose traceback was on the screen
        self._failed = False

    def line(self, event: LineSeen) -> Iterator[LineSeen]:
        """Take a line; gives it back if it is to be shown."""
        key = event.host, event.rank
        if key in self._last or len(self._last) < RANKS:
            self._last.setdefault(key, deque(maxlen=LAST)).append(replace(event, text=event.text[:LENGTH]))
        if key in self._open:
            self._open[key] += 1
            if not _GOES_ON.match(event.text) or self._open[key] >= LONGEST:
                del self._open[key]  # with this line, which names the exception
            yield event
        elif _BEGINS.match(event.text) and (key in self._shown or len(self._shown) < SHOWN):
            self._open[key] = 1
            self._shown.add(key)
            yield event

    def failed(self, event: RankFailed) -> tuple[str, list[LineSeen]] | None:
        """What is said of the first rank that failed, and its last lines where they were not shown; None later."""
        if self._failed:
            return None
        self._failed = True
        key = event.host, event.rank
        seen = event.rank == 0 or key in self._shown
        lines = [] if seen else list(self._last.get(key, ()))
        more = "; its last lines:" if lines else ""
        return f"rank {event.rank} on {event.host} {event.how}{more}", lines
