"""From the pieces of one written word to the words that the shell makes of it: parted at blanks, braces spread out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import translate

from dsdoctor.jobs.script.model import Word
from dsdoctor.jobs.unknown import Unknown

_SEQUENCE = re.compile(r"\{(-?\d{1,6})\.\.(-?\d{1,6})\}")
_ALTERNATIVES = re.compile(r"([^{}$]*)\{([^{}$\s]*,[^{}$\s]*)\}([^{}$]*)")
_MOST = 1000  # words that one brace makes
_LONGEST = 100_000  # characters of one value: `x=$x$x` in a loop doubles it each time


@dataclass(frozen=True)
class Piece:
    """A part of a word: its text, whether blanks in it part words, whether it may be any number of words."""

    text: str
    splits: bool = False
    many: bool = False
    quoted: bool = False


def fields(pieces: list[Piece], line: int, column: int) -> Iterator[Word]:
    """The words out of the pieces of one written word: blanks in unquoted expansions part them."""
    current: list[str] = []
    many = quoted = False
    for piece in pieces:
        quoted = quoted or piece.quoted
        if not piece.splits or isinstance(piece.text, Unknown):
            current.append(piece.text)
            many = many or piece.many
            continue
        found = piece.text.split()
        if piece.text[:1].isspace() and any(current):
            yield Word(joined(current), line, column, many, quoted)
            current = []
        for text in found[:-1]:
            yield Word(joined([*current, text]), line, column, many, quoted)
            current = []
        current += found[-1:]
        if found and piece.text[-1:].isspace():
            yield Word(joined(current), line, column, many, quoted)
            current = []
    if any(current) or quoted:
        yield Word(joined(current), line, column, many, quoted)


def joined(texts: list[str]) -> str:
    """The texts as one; an Unknown where one of them is."""
    reason = next((text.reason for text in texts if isinstance(text, Unknown)), None)
    whole = "".join(texts)
    if len(whole) > _LONGEST:
        return Unknown(whole[:80], f"it is longer than {_LONGEST} characters")
    return whole if reason is None else Unknown(whole, reason)


def braces(text: str) -> list[str] | None:
    """The words that `{1..4}` and `a{b,c}` stand for; None for any other text."""
    found = _SEQUENCE.fullmatch(text)
    if found:
        first, last = int(found[1]), int(found[2])
        step = 1 if last >= first else -1
        return [str(number) for number in range(first, last + step, step)][:_MOST]
    found = _ALTERNATIVES.fullmatch(text)
    if found and "\\" not in text and '"' not in text and "'" not in text:
        return [found[1] + middle + found[3] for middle in found[2].split(",")]
    return None


def trimmed(value: str, operator: str, pattern: str) -> str:
    """What `${name%pattern}` and its three kin leave. Long values with many stars would cost much; they are left."""
    if len(value) > 1000 or pattern.count("*") > 3:
        return Unknown(value[:80], "a pattern is cut off a long value")
    matches = re.compile(translate(pattern)).match
    ends = range(len(value) + 1)
    cuts = (
        [end for end in ends if matches(value[:end])]
        if "#" in operator
        else [start for start in ends if matches(value[start:])]
    )
    if not cuts:
        return value
    if "#" in operator:
        return value[max(cuts) if operator == "##" else min(cuts) :]
    return value[: min(cuts) if operator == "%%" else max(cuts)]
