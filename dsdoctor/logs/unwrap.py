"""Pasted logs that a terminal wrapped: lines cut at its width are put together again.

A paste out of an 80-column terminal has no line longer than 80, and every long one ends exactly there. Only small
sources are looked at: nobody pastes megabytes.
"""

from __future__ import annotations

import re
import unicodedata
from itertools import pairwise

from dsdoctor.logs.shape import Numbered

NARROWEST, WIDEST = 60, 400  # columns
USUAL = (80, 90, 100, 120, 132, 160, 200)  # of a terminal: one line that is cut there in a word is enough

_BEGINNING = re.compile(
    r"\[(?:rank|default|[WEI]\d?|\d{4}-)|\d{4}-\d\d-\d\d|\d\d/\d\d/\d{4}"
    r"|[\w.-]{1,80}:(?:\d{1,6}|-)\| |[IWEF]\d{4} \d\d:"  # dsdoctor's own merged log; torch's and glog's lines
    r'|Traceback|\s*File "|(?:[A-Za-z_]\w{0,60}\.){0,8}[A-Z]\w{0,80}(?:Error|Exception|Interrupt|Warning)\b'
)


def unwrap(lines: list[Numbered]) -> list[Numbered]:
    """The lines with wrapped ones joined; a joined one has the number of its first part."""
    if sum(text.endswith("  ") for _, text in lines) * 2 > len(lines):  # a console copies its rows filled with blanks
        lines = [(number, text.rstrip()) for number, text in lines]
    width = _width([text for _, text in lines])
    if width is None:
        return lines
    out: list[Numbered] = []
    before: str | None = None  # the part that stands before, as it was pasted
    for number, text in lines:
        if before is not None and _continues(before, text, width):
            out[-1] = (out[-1][0], out[-1][1] + text)
        else:
            out.append((number, text))
        before = text
    return out


def _width(lines: list[str]) -> int | None:
    """The width at which the text was wrapped, None when it was not."""
    widest = max((_columns(line) for line in lines), default=0)
    if not NARROWEST <= widest <= WIDEST:
        return None
    pairs = {(line, following) for line, following in pairwise(lines) if _continues(line, following, widest)}
    in_a_word = any(_in_a_word(line, following) for line, following in pairs)
    enough = 1 if widest == 80 or (widest in USUAL and in_a_word) else 2
    # Of a width that no terminal has by itself, two ranks may have said the same long thing.
    return widest if len(pairs) >= enough and (widest in USUAL or in_a_word) else None


def _in_a_word(line: str, following: str) -> bool:
    """Whether the break stands inside a word."""
    return line[-1].isalnum() and following[0].islower()


def _continues(line: str, following: str, width: int) -> bool:
    """Whether a line goes on in the next one, which then does not begin as lines of logs do."""
    if not following.strip() or _ruler(line) or _ruler(following):
        return False
    # A wide letter that does not fit any more leaves a column empty.
    if _columns(line) != width and not (_columns(line) == width - 1 and _columns(following[0]) == 2):
        return False
    return not _BEGINNING.match(following) and following[:8] != line[:8]


def _ruler(line: str) -> bool:
    """Lines of one repeated character, such as ======, end where they are meant to."""
    text = line.strip()
    return len(text) > 3 and len(set(text[-20:])) <= 1


def _columns(line: str) -> int:
    """The columns that a line takes on a terminal."""
    if line.isascii():
        return len(line)
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in line)
