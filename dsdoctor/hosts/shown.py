"""What came from outside (a file, a host, ssh) as text that is fit to be printed."""

from __future__ import annotations

import re

# Colours, titles and cursor moves, before single control characters are escaped.
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")


def shown(text: str, limit: int = 80) -> str:
    """A piece of text on one line: control characters escaped, cut to `limit` characters."""
    cut = text if len(text) <= limit else text[:limit] + "…"
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in cut)


def said(output: bytes, *, first: int = 3, last: int = 3, limit: int = 200) -> str:
    """The first and last non-empty lines of a program's output, joined by ` | `; escape sequences are taken off."""
    text = _ESCAPES.sub("", output[: 64 << 10].decode("utf-8", "replace"))
    if len(output) > 64 << 10:
        text += "\n…\n" + _ESCAPES.sub("", output[-(64 << 10) :].decode("utf-8", "replace"))
    lines = [shown(line.strip(), limit) for line in re.split(r"[\r\n]+", text) if line.strip()]
    if len(lines) > first + last:
        lines[first:-last] = ["…"]
    return " | ".join(lines)
