"""The syntax tree of a shell script, and the mistakes of writing that end a command where nobody meant it to end.

The tree is that of tree-sitter-bash, which keeps the place of every word and reads on behind what it cannot read. A
script whose mistakes are known (a blank behind a backslash) is read as it was meant: the mistakes are reported, and
what else is wrong is seen all the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Literal

from dsdoctor.jobs.script.balance import Balance
from dsdoctor.jobs.script.expand import text_of
from dsdoctor.jobs.script.model import Trouble
from dsdoctor.yamlfile import FileError

if TYPE_CHECKING:
    from tree_sitter import Node, Parser

LARGEST = 4_000_000  # bytes; a script that starts training has a few thousand

_BLANK = re.compile(rb"\\(?=[ \t])[ \t]+(?P<said>(?://|#)[^\n]*)?(?=\n|\Z)")
# The grammar's scanner asks the C library of every character whether it is a letter, in a table that ends long before
# Unicode does: far behind it lies memory that is not there. No such character stands in a script but to do harm.
_BEHIND_THE_TABLE = re.compile(rb"[\xf0-\xf4][\x80-\xbf]{3}")
_FIRST_BEHIND = "\U00030000".encode()
_LITERAL = frozenset({"comment", "heredoc_body", "raw_string", "string", "ansi_c_string", "string_content"})
_CLOSES = {
    '"': ('"', "the double quote"),
    "'": ("'", "the single quote"),
    "`": ("`", "the backquote"),
    "$(": (")", "the $("),
    "$((": ("))", "the $(("),
    "(": (")", "the bracket ("),
    "${": ("}", "the ${"),
    "{": ("}", "the brace {"),
    "if": ("fi", "the if"),
    "do": ("done", "the do"),
    "case": ("esac", "the case"),
    "[[": ("]]", "the [["),
    "[": ("]", "the ["),
}
_Kind = Literal["blank-after-backslash", "comment-in-continuation"]


def parse(text: str, source: str) -> tuple[Node, tuple[Trouble, ...]]:
    """The tree of a script, and the mistakes that were passed over to get it.

    Raises:
        FileError: a quote, a bracket or a block that is never closed, with the line where it opens; or a file that is
            too large to be a script.
    """
    data = _BEHIND_THE_TABLE.sub(_told_apart, text.encode("utf-8", "surrogatepass"))
    if len(data) > LARGEST:
        raise FileError(source, f"{len(data)} bytes are too many for a script that starts training (at most {LARGEST})")
    troubles, mended = _mended(data)
    root = _parser().parse(mended).root_node
    if root.has_error:
        _refuse_what_is_open(root, mended, source)
    return root, tuple(troubles)


def _told_apart(found: re.Match[bytes]) -> bytes:
    """A character that the scanner cannot be given, as another one and a letter of the same length in all."""
    return found[0] if found[0] < _FIRST_BEHIND else "\N{REPLACEMENT CHARACTER}?".encode()


@cache
def _parser() -> Parser:
    import tree_sitter_bash
    from tree_sitter import Language, Parser

    return Parser(Language(tree_sitter_bash.language()))


def _mended(data: bytes) -> tuple[list[Trouble], bytes]:
    """The text as it was meant, byte for byte in its place, and what was passed over."""
    troubles: list[Trouble] = []
    if b"\r\n" in data:
        at = data.index(b"\r\n")
        troubles.append(_trouble("carriage-return", data, at, "\\r"))
        data = re.sub(rb"\\\r\n", b" \\\\\n", data).replace(b"\r\n", b" \n")
    if data.rstrip().endswith(b"\\"):  # at the end of the file it joins nothing
        last = data.rindex(b"\\")
        data = data[:last] + b" " + data[last + 1 :]
    if not _BLANK.search(data) and b"#" not in data:
        return troubles, data
    result = bytearray(data)
    root = _parser().parse(data).root_node
    for found in _BLANK.finditer(data):
        if not _is_literal(root, found.start()):
            said = (found["said"] or b"").decode("utf-8", "replace")
            troubles.append(_trouble("blank-after-backslash", data, found.start(), said))
            result[found.start() : found.end()] = b" " * (found.end() - found.start() - 1) + b"\\"
    for start, end, last in _cutting_comments(bytes(result)):
        if not _is_literal(root, start, comments=False):
            said = bytes(result[start:end]).decode("utf-8", "replace").rstrip("\\ \t")
            troubles.append(_trouble("comment-in-continuation", data, start, said))
            result[start:end] = b" " * (end - start - 1) + (b"\\" if last else b" ")
    return sorted(troubles, key=lambda trouble: trouble.line), bytes(result)


def _cutting_comments(data: bytes) -> Iterator[tuple[int, int, bool]]:
    """Comments between the lines of one command whose options go on behind them: start, end, and always a backslash."""
    lines = data.split(b"\n")
    starts, at = [], 0
    for line in lines:
        starts.append(at)
        at += len(line) + 1
    number = 0
    while number < len(lines):
        line = lines[number]
        continued = line.endswith(b"\\") and not line.lstrip().startswith(b"#")
        if not continued:
            number += 1
            continue
        hash_at = _trailing_comment(line)
        first = number + 1
        last = first
        while last < len(lines) and lines[last].lstrip().startswith(b"#"):
            last += 1
        goes_on = last < len(lines) and lines[last].lstrip().startswith(b"-")
        if hash_at is not None and goes_on:
            yield starts[number] + hash_at, starts[number] + len(line), True
        for cut in range(first, last) if goes_on else ():
            indent = len(lines[cut]) - len(lines[cut].lstrip())
            yield starts[cut] + indent, starts[cut] + len(lines[cut]), True
        number = max(last, number + 1)


def _trailing_comment(line: bytes) -> int | None:
    """Where a comment begins that swallows the backslash at the end of its line, outside of quotes."""
    quote = 0
    for at, char in enumerate(line):
        if quote:
            quote = 0 if char == quote else quote
        elif char in b"'\"":
            quote = char
        elif char == ord("#") and at and line[at - 1] in b" \t":
            return at
    return None


def _is_literal(root: Node, at: int, *, comments: bool = True) -> bool:
    """Whether a byte stands where a backslash or a hash means itself: in quotes, in a here-document, in a comment."""
    node = root.descendant_for_byte_range(at, at + 1)
    while node is not None:
        if node.type in _LITERAL and (comments or node.type != "comment"):
            return True
        node = node.parent
    return False


def _trouble(kind: _Kind | Literal["carriage-return"], data: bytes, at: int, text: str) -> Trouble:
    line_start = data.rfind(b"\n", 0, at) + 1
    return Trouble(kind, data.count(b"\n", 0, at) + 1, at - line_start + 1, text.strip())


def _refuse_what_is_open(root: Node, data: bytes, source: str) -> None:
    """Name the quote or the block that is never closed. Other mistakes are left: the reader goes on behind them.

    Raises:
        FileError: something is open at the end of the file.
    """
    balance = Balance(data.decode("utf-8", "replace"))
    for node in broken(root):
        opener: Node | None = None
        token = ""
        if node.is_missing:
            opener = _opener_of(node)
        elif not node.child_count and text_of(node)[:1] in ("'", '"'):
            opener, token = node, text_of(node)[0]
        else:
            opener = _last_open(node)
        if opener is not None and balance.leaves_open(token or opener.type):
            raise _open(opener, token or opener.type, source)


def _open(opener: Node, token: str, source: str) -> FileError:
    closing, name = _CLOSES[token]
    column = opener.start_point.column + 1
    line = opener.start_point.row + 1
    return FileError(source, f"column {column}: {name} that opens here is never closed; {closing} is missing", line)


def broken(root: Node) -> Iterator[Node]:
    """The nodes that are missing or could not be read, in the order of the text."""
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if node.is_missing or node.type == "ERROR":
            yield node
        if node.has_error:
            waiting += reversed(node.children)


def _opener_of(missing: Node) -> Node | None:
    """The token that a missing one would close, among those before it."""
    place: Node | None = missing
    while place is not None and place.parent is not None:
        for sibling in place.parent.children:
            if sibling.type in _CLOSES and _CLOSES[sibling.type][0] == missing.type and not sibling.is_missing:
                return sibling
        place = place.parent
    return None


def _last_open(error: Node) -> Node | None:
    """The first token of an unreadable stretch that nothing in it closes."""
    opened: list[Node] = []
    for child in error.children:
        if opened and child.type == _CLOSES[opened[-1].type][0]:
            opened.pop()
        elif child.type in _CLOSES and not child.is_named:
            opened.append(child)
        elif child.type == "ERROR" and text_of(child) in _CLOSES:
            continue
    return opened[0] if opened else None
