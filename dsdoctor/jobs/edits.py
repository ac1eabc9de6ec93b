"""Changes of single keys in the text of a DeepSpeed config: what is not changed keeps its order, form and comments."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from dsdoctor.jobs.relaxed import NOT_JSON, parse_relaxed

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s{}\[\],:"]+')


@dataclass(frozen=True)
class Edit:
    """One change: a key gets another `value`, another `name`, or is taken out with all that is in it."""

    path: tuple[str, ...]
    action: Literal["set", "rename", "remove"]
    to: Any = None  # the value, or the name

    def __str__(self) -> str:
        dotted = ".".join(self.path)
        if self.action == "remove":
            return f"{dotted} taken out"
        return f"{dotted} {'set' if self.action == 'set' else 'renamed'} to {_written(self.to)}"


@dataclass(frozen=True)
class _Member:
    """Where a key and its value are in the text, and the commas on both sides."""

    key: tuple[int, int]
    value: tuple[int, int]
    before: int | None
    after: int | None


def edited(text: str, edits: Sequence[Edit]) -> str:
    """The text with these changes made.

    Raises:
        FileError: the text is no config.
        LookupError: a key is not there.
    """
    blanked = parse_relaxed(text, "config").text  # of the same length: what is no JSON is blank in it
    members = dict(_members(blanked))
    spans: list[tuple[int, int, str]] = []
    for edit in edits:
        member = members[edit.path]
        if edit.action == "set":
            spans.append((*member.value, _written(edit.to)))
        elif edit.action == "rename":
            spans.append((*member.key, _written(edit.to)))
        else:
            spans += _removal(text, member)
    for start, end, new in sorted(spans, reverse=True):
        text = text[:start] + new + text[end:]
    return text


def as_json(text: str) -> str:
    """The text without comments and without commas before closing brackets, and without the lines that this empties."""

    def kept(found: re.Match[str]) -> str:
        return found[0] if found["text"] else "\0"

    lines = []
    for line in NOT_JSON.sub(kept, text).splitlines(keepends=True):
        bare = line.replace("\0", "")
        end = bare[len(bare.rstrip("\r\n")) :]
        if bare == line:
            lines.append(line)
        elif bare.strip():
            lines.append(bare.rstrip() + end)
    return "".join(lines)


def _written(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _removal(text: str, member: _Member) -> Iterator[tuple[int, int, str]]:
    """What goes with a key: its value, one comma, and its lines where nothing else is on them."""
    start, end = member.key[0], member.value[1]
    if member.after is not None:
        end = member.after + 1
    elif member.before is not None:
        yield member.before, member.before + 1, ""
    front = text.rfind("\n", 0, start) + 1
    back = text.find("\n", end)
    if back != -1 and not text[front:start].strip() and not text[end:back].strip():
        start, end = front, back + 1
    elif member.after is not None:
        end += len(text[end:]) - len(text[end:].lstrip(" "))
    yield start, end, ""


def _members(text: str) -> Iterator[tuple[tuple[str, ...], _Member]]:
    """Every key of a text that is known to be JSON, at any depth of objects; lists are not looked into."""
    tokens = [(found.group(), found.start(), found.end()) for found in _TOKEN.finditer(text)]
    yield from _of_object(tokens, 0, ())


def _of_object(
    tokens: list[tuple[str, int, int]], at: int, path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], _Member]]:
    """The keys of the object whose opening bracket is that token, then those of the objects in it."""
    before: int | None = None
    at += 1
    while tokens[at][0] != "}":
        if tokens[at][0] == ",":
            before = tokens[at][1]
            at += 1
        key, start, end = tokens[at]
        last = _end_of(tokens, at + 2)
        comma = tokens[last + 1][1] if tokens[last + 1][0] == "," else None
        inner = (*path, json.loads(key))
        yield inner, _Member((start, end), (tokens[at + 2][1], tokens[last][2]), before, comma)
        if tokens[at + 2][0] == "{":
            yield from _of_object(tokens, at + 2, inner)
        at = last + 1


def _end_of(tokens: list[tuple[str, int, int]], at: int) -> int:
    """The last token of the value that begins there."""
    depth = 0
    while True:
        depth += (tokens[at][0] in "{[") - (tokens[at][0] in "}]")
        if depth == 0:
            return at
        at += 1
