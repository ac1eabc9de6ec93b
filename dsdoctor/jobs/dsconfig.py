"""DeepSpeed config files: read strictly, with the line of every key for the evidence.

DeepSpeed itself reads its config as Hjson (comments are let through), but transformers and accelerate read the same
file as JSON; only standard JSON works everywhere, so only that is taken. A key given twice is refused, as DeepSpeed
refuses it (`json.load` in the other two silently takes the second).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from dsdoctor.jobs.job import DeepSpeedConfig
from dsdoctor.yamlfile import FileError

# The release whose keys and values the checks have by heart (checks/data/deepspeed_keys.json, deepspeed_parts.yaml).
KNOWN_RELEASE = "0.19.8"

# DeepSpeed's own configs nest three deep. A bound keeps a broken or hostile file from exhausting the stack later.
MAX_DEPTH = 32

_PIECE = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|\n|[^\s{}\[\],:"]+')

# What stands at the place where the JSON reader stopped, and what to do about it.
_MENDS = (
    (re.compile(r"//|/\*|#"), "comments are not JSON: take it out"),
    (re.compile(r"'"), "JSON writes text in double quotes"),
    (re.compile(r"True\b|False\b"), "JSON writes true and false in lower case"),
    (re.compile(r"None\b"), "JSON writes null, not None"),
    (re.compile(r"\.\d|\+\d"), "a JSON number begins with a digit or with -"),
)


def parse_config(text: str, source: str) -> DeepSpeedConfig:
    """Read the text of a DeepSpeed config.

    Raises:
        FileError: not JSON, not an object, or a key twice; with the line, the column and the mend.
    """
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        place = _extra_comma(text, error.pos)
        if place is not None:
            line, column = text.count("\n", 0, place) + 1, place - text.rfind("\n", 0, place)
            raise FileError(
                source, f"column {column}: a comma before a closing bracket is one too many", line
            ) from None
        raise FileError(source, _explain(text, error), error.lineno) from None
    except RecursionError:
        raise FileError(source, f"nested more than {MAX_DEPTH} deep") from None
    except ValueError as error:
        raise FileError(source, f"not a DeepSpeed config: {error}") from None
    if not isinstance(value, dict):
        raise FileError(source, f"a DeepSpeed config is a JSON object {{…}}, found {_kind(value)}")
    seen: dict[tuple[str, ...], int] = {}
    for path, line in _keys(text):
        if path in seen:
            dotted = ".".join(path)
            raise FileError(source, f"the key {dotted} is given twice, first in line {seen[path]}; keep one", line)
        if len(path) > MAX_DEPTH:
            raise FileError(source, f"nested more than {MAX_DEPTH} deep", line)
        seen[path] = line
    return DeepSpeedConfig(path=source, value=value, text=text)


def get(config: DeepSpeedConfig, dotted: str) -> Any:
    """The value at a dotted path ("fp16.enabled"), None where the path does not lead anywhere."""
    value: Any = config.value
    for key in dotted.split("."):
        if not isinstance(value, dict) or key not in value:
            return None
        value = value[key]
    return value


def line_of(config: DeepSpeedConfig, dotted: str) -> int | None:
    """The line of the key at a dotted path, or of its nearest parent that is there; None when none is."""
    wanted = tuple(dotted.split("."))
    lines = dict(_keys(config.text))
    return next((lines[wanted[:end]] for end in range(len(wanted), 0, -1) if wanted[:end] in lines), None)


def _keys(text: str) -> Iterator[tuple[tuple[str, ...], int]]:
    """Every key of a text that is known to be JSON, as its path, with its line. Elements of a list count from 0."""
    path: list[str] = []  # one entry for each open object or list: the key or the index being read
    lists: list[bool] = []
    line, string = 1, ""
    for piece in _PIECE.findall(text):
        if piece == "\n":
            line += 1
        elif piece in "{[":
            path.append("0" if piece == "[" else "")
            lists.append(piece == "[")
        elif piece in "}]":
            path.pop()
            lists.pop()
        elif piece == "," and lists and lists[-1]:
            path[-1] = str(int(path[-1]) + 1)
        elif piece == ":":
            path[-1] = json.loads(string)
            yield tuple(path), line
        elif piece != ",":
            string = piece


def _extra_comma(text: str, stopped: int) -> int | None:
    """Where the comma is that has a closing bracket after it; Python before 3.13 stops at the bracket, then at it."""
    before = text[:stopped].rstrip()
    comma = len(before) - 1 if before.endswith(",") else stopped
    return comma if text[comma : comma + 1] == "," and text[comma + 1 :].lstrip()[:1] in ("}", "]") else None


def _explain(text: str, error: json.JSONDecodeError) -> str:
    """What is wrong in words of the file, with the mend where it can be told."""
    where = f"column {error.colno}"
    if not text.strip():
        return "the file is empty; a DeepSpeed config is a JSON object {…}"
    if text.startswith("\ufeff"):
        return "the file begins with a byte-order mark, which JSON readers refuse: save it as UTF-8 without one"
    after = text[error.pos :].lstrip()
    for pattern, mend in _MENDS:
        if pattern.match(after):
            return f"{where}: {after.splitlines()[0][:20]!r}: {mend}"
    if not after:
        return f"{where}: the file ends in the middle; a closing bracket is missing"
    if error.msg == "Extra data":
        return f"{where}: {after.splitlines()[0][:20]!r} stands after the end of the object"
    if error.msg.startswith("Expecting ',' delimiter"):
        return f"{where}: a comma is missing before {after.splitlines()[0][:20]!r}"
    return f"{where}: {error.msg}, found {after.splitlines()[0][:20]!r}"


def _kind(value: Any) -> str:
    return {list: "a list", str: "a text", bool: "true or false", type(None): "null"}.get(type(value), "a number")
