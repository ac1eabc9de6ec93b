"""Pasted logs that a terminal wrapped: lines cut at its width are put together again.

A paste out of an 80-column terminal has no line longer than 80, and every long one ends exactly there. Only small
sources are looked at: nobody pastes megabytes.
"""

from __future__ import annotations

import unicodedata
from collections import Counter

from dsdoctor.logs.lines import decode

LARGEST = 1 << 18  # bytes of a source that may be a paste
NARROWEST, WIDEST = 60, 400  # columns


def unwrap(data: bytes) -> tuple[bytes, tuple[int, ...]]:
    """The text with wrapped lines joined, and the offsets in it at which a line break was taken out."""
    if len(data) > LARGEST or b"\r" in data.replace(b"\r\n", b""):
        return data, ()
    lines = decode(data).replace("\r\n", "\n").split("\n")
    width = _width(lines)
    if width is None:
        return data, ()
    out: list[bytes] = []
    breaks: list[int] = []
    size = 0
    for number, line in enumerate(lines):
        out.append(line.encode())
        size += len(out[-1])
        if number + 1 < len(lines) and _continues(line, lines[number + 1], width):
            breaks.append(size)
        elif number + 1 < len(lines):
            out.append(b"\n")
            size += 1
    return b"".join(out), tuple(breaks)


def _width(lines: list[str]) -> int | None:
    """The width at which the text was wrapped, None when it was not."""
    lengths = Counter(_columns(line) for line in lines if len(line) >= NARROWEST)
    if not lengths:
        return None
    widest = max(lengths)
    if not NARROWEST <= widest <= WIDEST:
        return None
    full = [line for line in lines if _columns(line) == widest and not _ruler(line)]
    return widest if len(full) >= 3 or (full and widest == 80) else None


def _continues(line: str, following: str, width: int) -> bool:
    """Whether a line goes on in the next one."""
    return _columns(line) == width and bool(following.strip()) and not _ruler(line) and not _ruler(following)


def _ruler(line: str) -> bool:
    """Lines of one repeated character, such as ======, end where they are meant to."""
    text = line.strip()
    return len(set(text[-20:])) <= 1


def _columns(line: str) -> int:
    """The columns that a line takes on a terminal."""
    if line.isascii():
        return len(line)
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in line)
