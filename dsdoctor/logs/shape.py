"""A text whose lines are no longer those of its source, and which of them it has where.

Wrapped lines are joined, records of JSON become several lines, pages lose their tags: the numbers told to a person must
be those of the file all the same.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from itertools import accumulate
from typing import NamedTuple

Numbered = tuple[int, str]  # the number of a line in its source, and its text


class Shape(NamedTuple):
    """A text, the offsets at which its lines and those of the source go apart, and by how much up to each."""

    data: bytes
    offsets: tuple[int, ...] = ()
    totals: tuple[int, ...] = (0,)  # one more than offsets

    def breaks(self, start: int, end: int) -> int:
        """How many line breaks of the source lie between two offsets."""
        count = self.data.count(b"\n", start, end)
        if self.offsets:
            count += self.totals[bisect_left(self.offsets, end)] - self.totals[bisect_left(self.offsets, start)]
        return count


def from_lines(lines: Iterable[Numbered]) -> Shape:
    """The text of these lines, which know their numbers."""
    parts: list[bytes] = []
    jumps: list[tuple[int, int]] = []
    size, expected = 0, 1
    for number, text in lines:
        raw = text.encode("utf-8", "replace")
        if number != expected:
            jumps.append((max(0, size - 1), number - expected))
        parts.append(raw)
        size += len(raw) + 1
        expected = number + 1
    return _shape(b"\n".join(parts), jumps)


def replaced(data: bytes, spans: Iterable[tuple[int, int, list[bytes]]]) -> Shape:
    """The text with stretches of single lines put in other words; a stretch that becomes several lines stays one."""
    parts: list[bytes] = []
    jumps: list[tuple[int, int]] = []
    size = done = 0
    for start, end, lines in spans:
        parts.append(data[done:start])
        size += start - done
        for place, line in enumerate(lines):
            if place:
                parts.append(b"\n")
                jumps.append((size, -1))
                size += 1
            parts.append(line)
            size += len(line)
        done = end
    parts.append(data[done:])
    return _shape(b"".join(parts), jumps) if done else Shape(data)


def _shape(data: bytes, jumps: list[tuple[int, int]]) -> Shape:
    totals = tuple(accumulate((jump for _, jump in jumps), initial=0))
    return Shape(data, tuple(offset for offset, _ in jumps), totals)
