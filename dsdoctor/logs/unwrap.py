"""Pasted logs that a terminal wrapped: lines cut at its width are put together again.

A paste out of an 80-column terminal has no line longer than 80, and every long one ends exactly there. Only small
sources are looked at: nobody pastes megabytes.
"""

from __future__ import annotations

import re
import unicodedata
from itertools import pairwise

from dsdoctor.logs.lines import decode

LARGEST = 1 << 18  # bytes of a source that may be a paste
NARROWEST, WIDEST = 60, 400  # columns

_BEGINNING = re.compile(
    r"\[(?:rank|default|[WEI]\d?|\d{4}-)|\d{4}-\d\d-\d\d|\d\d/\d\d/\d{4}"
    r'|Traceback|\s*File "|[A-Z]\w*(?:Error|Warning):'
)


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
    widest = max((_columns(line) for line in lines), default=0)
    if not NARROWEST <= widest <= WIDEST:
        return None
    pairs = sum(_continues(line, following, widest) for line, following in pairwise(lines))
    return widest if pairs >= 3 or (pairs and widest == 80) else None


def _continues(line: str, following: str, width: int) -> bool:
    """Whether a line goes on in the next one, which then does not begin as lines of logs do."""
    if not following.strip() or _columns(line) != width or _ruler(line) or _ruler(following):
        return False
    return not _BEGINNING.match(following) and following[:8] != line[:8]


def _ruler(line: str) -> bool:
    """Lines of one repeated character, such as ======, end where they are meant to."""
    text = line.strip()
    return len(set(text[-20:])) <= 1


def _columns(line: str) -> int:
    """The columns that a line takes on a terminal."""
    if line.isascii():
        return len(line)
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in line)
