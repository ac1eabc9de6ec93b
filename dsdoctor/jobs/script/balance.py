"""A second opinion on what a script leaves open: quotes and blocks, told apart by a scanner that knows no grammar.

bash's grammar has corners that tree-sitter's does not know. A script is refused only when both say that something is
never closed; where the scanner disagrees, the reader goes on.
"""

from __future__ import annotations

import re

_HEREDOC = re.compile(r"<<(-?)[ \t]*(\\?)([\"']?)([A-Za-z_][\w.-]*)\3")
_QUOTES = frozenset({'"', "'", "$'"})
_BLOCKS = {"if": ("if", "fi"), "do": ("do", "done"), "case": ("case", "esac")}


class Balance:
    """A script's text without what is quoted, commented or in here-documents, and what is open at its end."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._bare: list[str] = []
        self._opened: list[str] = []  # outermost first
        self._waiting: list[tuple[str, bool]] = []  # here-documents whose text begins with the next line
        at = 0
        while at < len(text):
            at = self._quoted(at) if self._opened and self._opened[-1] in _QUOTES else self._plain(at)

    def leaves_open(self, token: str) -> bool:
        """Whether this token, by which a quote or a block opens, is one that the text never closes."""
        if token in _BLOCKS:
            begin, end = _BLOCKS[token]
            bare = "".join(self._bare)
            return _count(bare, begin) > _count(bare, end)
        return token in ('"', "'", "`", "$(", "${") and token in self._opened

    def _quoted(self, at: int) -> int:
        """One step inside of quotes: to their end, or into what double quotes expand."""
        char, inside = self._text[at], self._opened[-1]
        if char == "\\" and inside != "'":
            return at + 2
        if char == inside[-1]:
            self._opened.pop()
        elif inside == '"' and self._text.startswith(("$(", "${"), at):
            self._opened.append(self._text[at : at + 2])
            return at + 2
        elif inside == '"' and char == "`":
            self._opened.append(char)
        return at + 1

    def _plain(self, at: int) -> int:
        """One step outside of quotes."""
        text, char = self._text, self._text[at]
        inside = self._opened[-1] if self._opened else ""
        for token in ("$'", "$(", "${", '"', "'"):
            if text.startswith(token, at):
                self._opened.append(token)
                return at + len(token)
        if char == "\\":
            return at + 2
        if char == "`":
            self._opened.pop() if inside == char else self._opened.append(char)
            return at + 1
        if (char == "}" and inside == "${") or (char == ")" and inside in ("$(", "(")):
            self._opened.pop()
            return at + 1
        if char == "(" and "$(" in self._opened:
            self._opened.append("(")
            return at + 1
        return at + 1 if inside == "${" else self._words(at)

    def _words(self, at: int) -> int:
        """One step where comments and here-documents may begin."""
        text, char = self._text, self._text[at]
        if char == "#" and (at == 0 or text[at - 1] in " \t\n;(&|"):
            stop = text.find("\n", at)
            return len(text) if stop < 0 else stop
        if text.startswith("<<<", at):
            return at + 3
        found = _HEREDOC.match(text, at) if char == "<" else None
        if found:
            self._waiting.append((found[4], bool(found[1])))
            return found.end()
        self._bare.append(char)
        if char == "\n" and self._waiting:
            at = _behind(text, at + 1, self._waiting) - 1
            self._waiting = []
        return at + 1


def _count(bare: str, word: str) -> int:
    return len(re.findall(rf"(?<![\w$./=:-]){word}(?![\w=./:-])", bare))


def _behind(text: str, at: int, documents: list[tuple[str, bool]]) -> int:
    """Where the text goes on behind the here-documents that begin here."""
    for word, indented in documents:
        before = "\t*" if indented else ""
        found = re.compile(rf"^{before}{re.escape(word)}$", re.MULTILINE).search(text, at)
        if found is None:
            return len(text)
        at = found.end()
    return at
