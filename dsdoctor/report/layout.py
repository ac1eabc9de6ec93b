"""How text reports are laid out: colour, width, wrapping, and host names folded as `gpu[01-08]`."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_SGR = {"bold": 1, "dim": 2, "red": 31, "green": 32, "yellow": 33, "blue": 34, "magenta": 35, "cyan": 36}
_COLOR = re.compile(r"\x1b\[[0-9;]*m")
_MARKS = {
    "error": ("✗", "x"),
    "warning": ("!", "!"),
    "info": ("i", "i"),
    "ok": ("✓", "ok"),
    "unknown": ("?", "?"),
    "skipped": ("–", "-"),
    "dash": ("–", "-"),
    "dot": ("·", "-"),
    "bar": ("│", "|"),
    "more": ("…", "..."),
}


@dataclass(frozen=True)
class Look:
    """What the screen can do. `width` in columns, None where lines are never wrapped (pipes, files)."""

    width: int | None = None
    color: bool = False
    unicode: bool = True

    def paint(self, text: str, *styles: str) -> str:
        """The text in colour where there is colour."""
        if not self.color or not text:
            return text
        return f"\x1b[{';'.join(str(_SGR[style]) for style in styles)}m{text}\x1b[0m"

    def mark(self, name: str) -> str:
        """A sign that says the same in ASCII where the screen has no more."""
        return _MARKS[name][0 if self.unicode else 1]

    def paragraph(self, text: str, indent: str = "", hanging: str | None = None) -> list[str]:
        """The text wrapped to the width; `indent` stands before the first line, `hanging` before the others."""
        return wrap(text, self.width, indent, indent if hanging is None else hanging)


def cells(text: str) -> int:
    """The columns that the text takes: wide letters (Chinese, most emoji) take two, combining marks and colour none."""
    if "\x1b" in text:
        text = _COLOR.sub("", text)
    if text.isascii():
        return len(text)
    total = 0
    for character in text:
        if unicodedata.combining(character):
            continue
        total += 2 if unicodedata.east_asian_width(character) in "WF" else 1
    return total


# A unit that is kept together: one wide letter (with the punctuation after it), or a run of other letters.
_WIDE = "\u2e80-\u303e\u3041-\u33ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\uff01-\uff60"
_UNIT = re.compile(rf"[{_WIDE}][，。；：！？、）》」』]*|[^\s{_WIDE}]+")


def wrap(text: str, width: int | None, indent: str = "", hanging: str = "") -> list[str]:
    """Lines of at most `width` columns, broken at spaces and between wide letters; a longer word is never broken.

    Line breaks in the text count as spaces.
    """
    if width is None:
        return [indent + " ".join(text.split())]
    lines: list[str] = []
    line, used = indent, cells(indent)
    start = True
    for word, glue in _units(text):
        size = cells(word)
        gap = "" if start else glue
        if not start and used + len(gap) + size > width:
            lines.append(line)
            line, used, gap = hanging, cells(hanging), ""
        line += gap + word
        used += len(gap) + size
        start = False
    lines.append(line)
    return lines


def _units(text: str) -> Iterable[tuple[str, str]]:
    """The units of a text, each with what stands before it: a space or nothing."""
    end = 0
    for match in _UNIT.finditer(text):
        yield match.group(), " " if match.start() > end else ""
        end = match.end()


_NUMBERED = re.compile(r"^(.*?)([0-9]{1,9})([^0-9]*)$", re.DOTALL)


def fold(names: Iterable[str]) -> str:
    """Host names in short: `gpu01, gpu02, gpu03, head` becomes `gpu[01-03], head`. The order is that of the first."""
    parts = {name: _NUMBERED.match(name) for name in names}
    # gpu01 and gpu1 are two names: where some number of a length begins with a zero, that length is a family of its own
    padded = {
        (match[1], len(match[2]), match[3])
        for match in parts.values()
        if match and len(match[2]) > 1 and match[2].startswith("0")
    }
    families: dict[tuple[str, str, int], list[str]] = {}
    for name, match in parts.items():
        if match is None:
            families[(name, "", -1)] = []
            continue
        head, digits, tail = match[1], match[2], match[3]
        width = len(digits) if (head, len(digits), tail) in padded else 0
        families.setdefault((head, tail, width), []).append(digits)
    return ", ".join(_folded(head, tail, numbers) for (head, tail, _), numbers in families.items())


def _folded(head: str, tail: str, numbers: Sequence[str]) -> str:
    if not numbers:
        return head
    if len(numbers) == 1:
        return f"{head}{numbers[0]}{tail}"
    return f"{head}[{ranges(numbers)}]{tail}"


def ranges(numbers: Iterable[int | str]) -> str:
    """Numbers in short: `0, 1, 2, 5` becomes `0-2,5`. Text keeps its leading zeros."""
    ordered = sorted({str(number) for number in numbers}, key=lambda digits: (int(digits), digits))
    runs: list[list[str]] = []
    for digits in ordered:
        if runs and int(digits) == int(runs[-1][-1]) + 1:
            runs[-1].append(digits)
        else:
            runs.append([digits])
    return ",".join(run[0] if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def count(number: int, noun: str, plural: str | None = None) -> str:
    """`1 host`, `2 hosts`."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"
