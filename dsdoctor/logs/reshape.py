"""What was done to a log on its way here is undone: wrapped, numbered, put into records, a page or a notebook."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

from dsdoctor.logs.documents import is_markdown, is_page, markdown_lines, page_lines
from dsdoctor.logs.notebooks import is_notebook, notebook_lines
from dsdoctor.logs.plain import decode
from dsdoctor.logs.records import records, said
from dsdoctor.logs.shape import Numbered, Shape, from_lines, replaced
from dsdoctor.logs.unwrap import unwrap

PASTE = 1 << 18  # bytes of a source that may be a paste
DOCUMENT = 1 << 22  # bytes of a page or a notebook, without its pictures, of which all must be at hand

_BASE64 = re.compile(rb"[A-Za-z0-9+/]{1000,}={0,2}")
# `cat -n` and `less -N` (aligned), `grep -n`, editors and viewers of logs on the web.
_NUMBERED = re.compile(r"[ ]{0,8}(?P<number>\d{1,7})(?P<mark>\t|:|\) | ?[|│] ?| {1,2})")


def is_document(head: bytes, name: str) -> bool:
    """Whether a source must be read whole: a page of HTML, a notebook."""
    return is_notebook(head) or is_page(head, name)


def without_pictures(data: bytes) -> bytes:
    """A part of a document without what is in Base64, most often nearly all of it."""
    return _BASE64.sub(b"", data)


def whole(data: bytes, name: str) -> Shape:
    """A source of which all is at hand: a document, a paste, or any small log."""
    lines: Iterator[Numbered] | None = None
    if is_notebook(data):
        lines = notebook_lines(decode(data))
    elif is_page(data, name):
        lines = page_lines("\n".join(decode(line) for line in data.split(b"\n")))
    if lines is not None:
        return from_lines(lines)
    if len(data) > PASTE and not is_markdown(name):
        return piece(data)
    given = [(number, decode(line.removesuffix(b"\r"))) for number, line in enumerate(data.split(b"\n"), 1)]
    shaped = _unnumbered(markdown_lines(given) if is_markdown(name) else given)
    if len(data) <= PASTE and not any("\r" in text for _, text in given):
        shaped = unwrap(shaped)
    if shaped == given:
        return piece(data)
    return from_lines([line for each in shaped for line in _said(each)])


def piece(data: bytes) -> Shape:
    """A part of a log, cut at the end of a line: only records are taken apart."""
    return replaced(data, records(data))


def _said(line: Numbered) -> list[Numbered]:
    """The lines of a record, or the line itself."""
    number, text = line
    lines = said(text.encode("utf-8", "replace")) if "{" in text or '": "' in text else None
    return [line] if lines is None else [(number, decode(each)) for each in lines]


def _unnumbered(lines: list[Numbered]) -> list[Numbered]:
    """The lines without numbers that a viewer put before them: of all lines, each greater than the one before."""
    found = [(_NUMBERED.match(text), number, text) for number, text in lines if text.strip()]
    counts = [int(match["number"]) for match, _, _ in found if match]
    if len(found) < 3 or len(counts) < len(found):
        return lines
    steps = [after - before for before, after in pairwise(counts)]
    colons = [text[match.end() :][:1] or " " for match, _, text in found if match and match["mark"] == ":"]
    if (
        min(steps) < 1
        or (steps.count(1) < len(steps) * 0.8 and not colons)
        or colons.count(" ") * 10 > 9 * len(colons) > 0
    ):
        return lines  # of srun --label each has a blank behind the colon
    return [(number, _NUMBERED.sub("", text, count=1)) for number, text in lines]
