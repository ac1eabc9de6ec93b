"""A text whose lines are no longer those of its source, and which of them it has where.

Wrapped lines are joined, records of JSON become several lines, pages lose their tags: the numbers told to a person must
be those of the file all the same.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import NamedTuple

Numbered = tuple[int, str]  # the number of a line in its source, and its text


class Shape(NamedTuple):
    """A text, the offsets at which its lines and those of the source go apart, and by how much up to each."""

    data: bytes
    offsets: Sequence[int] = ()
    totals: Sequence[int] = (0,)  # one more than offsets

    def breaks(self, start: int, end: int) -> int:
        """How many line breaks of the source lie between two offsets."""
        count = self.data.count(b"\n", start, end)
        if self.offsets:
            count += self.totals[bisect_left(self.offsets, end)] - self.totals[bisect_left(self.offsets, start)]
        return count


def from_lines(lines: Iterable[Numbered]) -> Shape:
    """The text of these lines, which know their numbers."""
    parts: list[bytes] = []
    offsets, jumps = array("q"), array("q")  # a page may have a million lines in one of its source
    size, expected = 0, 1
    for number, text in lines:
        raw = text.encode("utf-8", "replace")
        if number != expected:
            offsets.append(max(0, size - 1))
            jumps.append(number - expected)
        parts.append(raw)
        size += len(raw) + 1
        expected = number + 1
    return _shape(parts, b"\n", offsets, jumps)


def replaced(data: bytes, spans: Iterable[tuple[int, int, list[bytes]]]) -> Shape:
    """The text with stretches of single lines put in other words; a stretch that becomes several lines stays one."""
    parts: list[bytes] = []
    offsets, jumps = array("q"), array("q")
    size = done = 0
    for start, end, lines in spans:
        parts.append(data[done:start])
        size += start - done
        for place, line in enumerate(lines):
            if place:
                parts.append(b"\n")
                offsets.append(size)
                jumps.append(-1)
                size += 1
            parts.append(line)
            size += len(line)
        done = end
    if not done:
        return Shape(data)
    parts.append(data[done:])
    return _shape(parts, b"", offsets, jumps)


def _shape(parts: list[bytes], between: bytes, offsets: Sequence[int], jumps: Sequence[int]) -> Shape:
    return Shape(between.join(parts), offsets, array("q", accumulate(jumps, initial=0)))
