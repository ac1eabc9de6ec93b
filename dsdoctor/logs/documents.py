"""Pages and notes with logs in them, as lines: HTML without its tags, Markdown's indented blocks in fences.

What stands in one block is judged by itself (see :mod:`dsdoctor.logs.scan`), so every kind of block becomes a fence.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from dsdoctor.logs.shape import Numbered

FENCE = "```"

_MARKDOWN = re.compile(r"(?i)\.(?:md|mdx|markdown|mdown|mkd|qmd|rmd)$")
_PAGE = re.compile(rb"(?i)\s*(?:<\?xml[^<>]{0,200}>\s*)?(?:<!--[^<>]{0,2000}-->\s*)*(?:<!doctype\s+html|<html[\s>])")
_PAGE_NAME = re.compile(r"(?i)\.x?html?$")

_TAG = re.compile(r"<(?P<end>/?)(?P<name>[A-Za-z][A-Za-z0-9]{0,20})(?=[\s/>])[^<>]{0,65536}>|<!--|<![^<>]{0,2000}>")
_HIDDEN = ("script", "style", "template", "svg", "head", "noscript")
_BREAKING = frozenset(
    (
        *(
            "br",
            "p",
            "div",
            "li",
            "tr",
            "h1",
            "h2",
            "h3",
            "h4",
            "h5",
            "h6",
            "table",
            "ul",
            "ol",
            "dl",
            "dt",
            "dd",
            "hr",
        ),
        *("section", "article", "details", "summary", "blockquote", "header", "footer", "nav", "main", "title", "hr"),
    )
)
_INDENTED = re.compile(r"(?: {4}|\t)\s*\S")
_FENCED = re.compile(r"[ >]{0,8}(?P<fence>`{3,}|~{3,})")


def is_page(head: bytes, name: str) -> bool:
    """Whether a source is a page of HTML, by its beginning or by its name."""
    return bool(_PAGE.match(head)) or (bool(_PAGE_NAME.search(name)) and head.lstrip().startswith(b"<"))


def is_markdown(name: str) -> bool:
    """Whether a source is called as Markdown is; text that is pasted has fences or none."""
    return bool(_MARKDOWN.search(name))


def page_lines(text: str) -> Iterator[Numbered]:
    """The lines that a browser shows of a page, preformatted blocks in fences."""
    page = _Page()
    done = 0
    for start, end, name, closing in _tags(text):
        yield from page.text(text[done:start])
        yield from page.tag(name, closing, text.count("\n", start, end))
        done = end
    yield from page.text(text[done:])
    yield from page.line_break()


def _tags(text: str) -> Iterator[tuple[int, int, str, bool]]:
    """Begin, end and name of each tag; an element that is not shown is one tag, a comment is one without a name."""
    place = 0
    while found := _TAG.search(text, place):
        start, place = found.span()
        name = (found["name"] or "").lower()
        if found[0] == "<!--":
            end = text.find("-->", place)
            place = len(text) if end < 0 else end + 3
        elif name in _HIDDEN and not found["end"] and not found[0].endswith("/>"):
            end = _end_of(text, name, place)
            place = len(text) if end < 0 else end
        yield start, place, name, bool(found["end"])


def _end_of(text: str, name: str, place: int) -> int:
    """Where an element ends, -1 when it does not."""
    found = re.compile(rf"(?i)</{name}[^<>]{{0,200}}>").search(text, place)
    return found.end() if found else -1


class _Page:
    """The line of a page that is being put together."""

    def __init__(self) -> None:
        self._number = 1  # of the line of the source
        self._line: list[str] = []
        self._began = 1
        self._preformatted = False

    def text(self, raw: str) -> Iterator[Numbered]:
        """Text between two tags."""
        import html  # its table of entities is needed for pages alone

        for place, part in enumerate(raw.split("\n")):
            if place:
                yield from self.line_break()
                self._number += 1
                self._began = self._number
            if part.strip() or (part and self._preformatted):
                self._line.append(html.unescape(part).replace("\n", " "))

    def tag(self, name: str, closing: bool, breaks: int) -> Iterator[Numbered]:
        """A tag, in whose source there are so many line breaks."""
        if name == "pre":
            yield from self.line_break()
            if closing == self._preformatted:
                yield self._number, FENCE
            self._preformatted = not closing
        elif name in _BREAKING:
            yield from self.line_break()
        elif name in ("td", "th") and self._line:
            self._line.append(" ")
        self._number += breaks
        if not self._line:
            self._began = self._number

    def line_break(self) -> Iterator[Numbered]:
        """End the line, unless nothing is on it."""
        text = "".join(self._line)
        if text.strip():
            yield self._began, text
        self._line = []
        self._began = self._number


def markdown_lines(lines: list[Numbered]) -> list[Numbered]:
    """The same lines with indented blocks put in fences, and all fences of one kind."""
    out: list[Numbered] = []
    fence = ""  # that is open
    indented = False  # in an indented block
    blank = True  # the line before is blank
    for number, text in lines:
        found = _FENCED.match(text)
        block = not fence and bool(_INDENTED.match(text)) and (indented or blank)
        if indented and not block and text.strip():
            out.append((number, FENCE))
            indented = False
        elif block and not indented:
            out.append((number, FENCE))
            indented = True
        if found and not block and (not fence or found["fence"].startswith(fence)):
            fence = "" if fence else found["fence"]
        out.append((number, text.replace("~~~", FENCE) if found else text))
        blank = not text.strip()
    return out
