"""Jupyter notebooks: what their cells printed, with the lines of the file and the cell's number as Jupyter shows it.

The code and the notes of a notebook are not what happened; only outputs are read, each cell's in a fence of its own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from dsdoctor.logs.documents import FENCE
from dsdoctor.logs.plain import clean
from dsdoctor.logs.shape import Numbered

_JSON = json.JSONDecoder(strict=False)
_SPACE = re.compile(r"[ \t\r\n]*")
_BEGINNING = re.compile(rb'\s*\{\s*"(?:cells|metadata|nbformat|nbformat_minor|worksheets)"\s*:')
DEEPEST = 12  # of what is looked into: notebook, cells, cell, outputs, output, data, lines


class Placed(NamedTuple):
    """A string of a JSON text, and where it begins."""

    text: str
    offset: int


def is_notebook(head: bytes) -> bool:
    """Whether a source begins as notebooks do."""
    return bool(_BEGINNING.match(head)) and (b'"cell' in head or b'"nbformat' in head or b'"kernel' in head)


def notebook_lines(text: str) -> Iterator[Numbered] | None:
    """The lines that the cells printed, None when it is no notebook after all."""
    try:
        value, _ = _value(text, _skip(text, 0), 0)
    except (ValueError, IndexError, RecursionError):
        return None
    cells = value.get("cells") if isinstance(value, dict) else None
    if cells is None and isinstance(value, dict):  # before nbformat 4 (2014)
        sheets = value.get("worksheets")
        cells = [cell for sheet in _list(sheets) if isinstance(sheet, dict) for cell in _list(sheet.get("cells"))]
    if not isinstance(cells, list):
        return None
    return _fenced(cells, _Counter(text))


def _fenced(cells: list[Any], counter: _Counter) -> Iterator[Numbered]:
    for cell in cells:
        last = 0
        for number, line in _printed(cell, counter) if isinstance(cell, dict) else ():
            if not last:
                yield number, FENCE
            yield number, line
            last = number
        if last:
            yield last, FENCE


def _printed(cell: dict[str, Any], counter: _Counter) -> Iterator[Numbered]:
    """The lines of one cell's outputs, named by its number."""
    count = cell.get("execution_count", cell.get("prompt_number"))
    name = f"In [{count}]| " if isinstance(count, int) else ""
    for output in _list(cell.get("outputs")):
        if not isinstance(output, dict):
            continue
        data = output.get("data")
        texts = (
            output.get("traceback") or output.get("text") or (data.get("text/plain") if isinstance(data, dict) else ())
        )
        whole = output.get("traceback") is not None  # its strings are blocks of lines; those of a text are its pieces
        yield from _lines(texts, name, whole, counter)


def _lines(texts: Any, name: str, whole: bool, counter: _Counter) -> Iterator[Numbered]:
    number, line = 0, ""
    for placed in [texts] if isinstance(texts, Placed) else _list(texts):
        if not isinstance(placed, Placed):
            continue
        parts = clean(placed.text.encode("utf-8", "replace")).decode("utf-8", "replace").split("\n")
        for place, part in enumerate(parts):
            if place and number:
                yield number, name + line
                line = ""
            number = counter.line_of(placed.offset)
            line += part
        if whole:
            yield number, name + line
            line = ""
    if line:
        yield number, name + line


class _Counter:
    """Numbers of lines for offsets that only grow."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._offset = 0
        self._number = 1

    def line_of(self, offset: int) -> int:
        """The number of the line at an offset."""
        self._number += self._text.count("\n", self._offset, offset)
        self._offset = max(self._offset, offset)
        return self._number


# --- JSON whose strings know where they stand


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _skip(text: str, place: int) -> int:
    found = _SPACE.match(text, place)
    return found.end() if found else place


def _value(text: str, place: int, depth: int) -> tuple[Any, int]:
    """The value that begins at a place, and where it ends. Raises ValueError and IndexError for what is no JSON."""
    mark = text[place]
    if mark == '"':
        string, end = _JSON.raw_decode(text, place)
        return Placed(string, place), end
    if depth > DEEPEST or mark not in "{[":
        return _JSON.raw_decode(text, place)
    return _object(text, place + 1, depth) if mark == "{" else _array(text, place + 1, depth)


def _object(text: str, place: int, depth: int) -> tuple[dict[str, Any], int]:
    found: dict[str, Any] = {}
    place = _skip(text, place)
    while text[place] != "}":
        key, place = _JSON.raw_decode(text, place)
        place = _skip(text, place)
        if not isinstance(key, str) or text[place] != ":":
            raise ValueError("a key without a value")
        found[key], place = _value(text, _skip(text, place + 1), depth + 1)
        place = _next(text, place, "}")
    return found, place + 1


def _array(text: str, place: int, depth: int) -> tuple[list[Any], int]:
    found: list[Any] = []
    place = _skip(text, place)
    while text[place] != "]":
        value, place = _value(text, place, depth + 1)
        found.append(value)
        place = _next(text, place, "]")
    return found, place + 1


def _next(text: str, place: int, end: str) -> int:
    """Past the comma, or at the end."""
    place = _skip(text, place)
    if text[place] == end:
        return place
    if text[place] != ",":
        raise ValueError("neither a comma nor an end")
    return _skip(text, place + 1)
