"""Code without what a host has no use for: docstrings, and the columns of a traceback's marks; lines stay.

Both are more than a third of a module's code once it is packed, and each host takes it in anew.
"""

from __future__ import annotations

import opcode
import sys
from collections.abc import Iterator
from types import CodeType
from typing import Any

# Flags of a code object: a function's, and one whose first constant is a docstring, which Python 3.14 began to say.
_OF_FUNCTION, _HAS_DOCSTRING = 0x2, 0x4000000  # inspect.CO_NEWLOCALS, CO_HAS_DOCSTRING
_TAKES_CONSTANT = frozenset(opcode.hasconst)
# Kinds of entries of a location table. Source: Objects/locations.md of CPython 3.11.
_NO_COLUMNS, _NO_LOCATION = 13, 15
_UNITS = 8  # that an entry stands for at most, each two bytes of code


def slim(code: CodeType, place: str) -> CodeType:
    """The code with another file name and nothing but its lines, down to its functions."""
    constants: list[Any] = [slim(each, place) if isinstance(each, CodeType) else each for each in code.co_consts]
    if _has_docstring(code):
        constants[0] = ""
    slimmed = code.replace(co_filename=place, co_consts=tuple(constants))
    return slimmed.replace(co_linetable=_line_table(code)) if sys.version_info >= (3, 11) else slimmed


def _has_docstring(code: CodeType) -> bool:
    """Whether the first constant is a function's docstring and nothing else."""
    if not code.co_flags & _OF_FUNCTION or not code.co_consts or not isinstance(code.co_consts[0], str):
        return False
    if sys.version_info >= (3, 14) and not code.co_flags & _HAS_DOCSTRING:
        return False
    words = zip(code.co_code[::2], code.co_code[1::2], strict=True)
    return not any(number == 0 and operation in _TAKES_CONSTANT for operation, number in words)


def _line_table(code: CodeType) -> bytes:
    """The location table of Python 3.11 and newer with the lines alone."""
    table, last = bytearray(), code.co_firstlineno
    for units, line in _runs(code):
        for start in range(0, units, _UNITS):
            kind = _NO_LOCATION if line is None else _NO_COLUMNS
            table.append(0x80 | kind << 3 | min(_UNITS, units - start) - 1)
            if line is not None:
                table += _signed(line - last)
                last = line
    return bytes(table)


def _runs(code: CodeType) -> Iterator[tuple[int, int | None]]:
    """How many units of code come one after the other for a line, and the line."""
    units, current = 0, None
    for start, stop, line in code.co_lines():
        if line != current and units:
            yield units, current
            units = 0
        units, current = units + (stop - start) // 2, line
    if units:
        yield units, current


def _signed(number: int) -> bytes:
    """A number in groups of six bits, the lowest first, its sign in the lowest bit."""
    left = (-number << 1) | 1 if number < 0 else number << 1
    groups = bytearray()
    while left >= 64:
        groups.append(64 | left & 63)
        left >>= 6
    groups.append(left)
    return bytes(groups)
