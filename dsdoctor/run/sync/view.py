"""Who sees whose folder: hosts on one file system are copied to once, and nothing is ever copied onto itself."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeVar

from dsdoctor.run.sync.host_side import TOKENS

Relation = Literal["none", "apart", "same", "inside", "around"]
T = TypeVar("T")


def relation(place: str, token: str, source: str) -> Relation:
    """How a host's folder lies to a folder of this machine, told by the token that the host left in its own.

    `none`: this machine does not see it. `apart`: it does, and the two have nothing to do with each other. `same`,
    `inside`, `around`: the host's folder is the source, lies in it, or holds it. The host may have it under another
    path than this machine (`/home` here, `/nfs/home` there), so the source's own neighbourhood is looked at, too.
    """
    if not token:
        return "none"
    real = Path(os.path.realpath(source))
    parts = Path(place).parts
    nested = [real.joinpath(*parts[start:]) for start in range(1, len(parts))]
    found: Relation = "none"
    for candidate in (Path(place), real, *real.parents, *nested):
        if (candidate / TOKENS / token).exists():
            lies = _between(Path(os.path.realpath(candidate)), real)
            if lies != "apart":  # that may only be the same folder under another name of this machine's
                return lies
            found = lies
    return found


def _between(place: Path, source: Path) -> Relation:
    if place == source:
        return "same"
    if place.is_relative_to(source):
        return "inside"
    return "around" if source.is_relative_to(place) else "apart"


def grouped(hosts: Sequence[T], token: Mapping[T, str], seen: Mapping[T, Sequence[str]]) -> list[list[T]]:
    """Hosts put together that see the token of the first of them; `seen` are the tokens that each sees."""
    groups: list[list[T]] = []
    for host in hosts:
        for group in groups:
            if token[group[0]] and token[group[0]] in seen[host]:
                group.append(host)
                break
        else:
            groups.append([host])
    return groups
