"""Whose log it is, by its name."""

from __future__ import annotations

import re

_BY_PATH = (
    re.compile(r"(?:^|[/\\])(?P<host>[^/\\]{1,255})[/\\]rank(?P<rank>\d{1,6})\.log(?:\.\w{1,4})?$"),
    re.compile(r"(?:^|[/\\])(?P<host>[^/\\]{1,255})[/\\]agent\.log$"),
    re.compile(r"[/\\]attempt_\d+[/\\](?P<rank>\d{1,6})[/\\](?:stdout|stderr)\.log$"),
    re.compile(r"(?:^|[/\\_.-])rank[_-]?(?P<rank>\d{1,6})(?:[_.-][^/\\]*)?$"),
)


def place_of(name: str) -> tuple[str | None, int | None]:
    """Host and rank that the path of a log tells: `HOST/rank3.log`, torchrun's `attempt_0/3/stderr.log`."""
    for pattern in _BY_PATH:
        match = pattern.search(name)
        if match:
            groups = match.groupdict()
            return groups.get("host"), int(groups["rank"]) if groups.get("rank") else None
    return None, None
