"""What the parts of a sync hand to one another: a host with what it said of its folders, and how it got its files."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass, field
from typing import Any

from dsdoctor.plan.model import TreePlan
from dsdoctor.run.sync.rsync import Done
from dsdoctor.run.sync.session import Session


@dataclass(frozen=True)
class Got:
    """How a host came by its files."""

    host: str
    what: str  # code, data, model
    how: str  # "copied", "there" (it had them), "shares" (the folder of another)
    detail: str = ""
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def sentence(self) -> str:
        """One line about it."""
        return f"{self.host} {self.detail}" if self.how == "shares" else f"{self.what} is on {self.host}: {self.detail}"


@dataclass
class Host:
    """A host during the sync: the way to it, its token, and what it said of its folders."""

    session: Session
    token: str
    opened: dict[str, Any] = field(default_factory=dict)
    seen: dict[str, list[str]] = field(default_factory=dict)  # of the tokens, those that it sees in each folder

    @property
    def name(self) -> str:
        """The host's name."""
        return self.session.host.name


def holder(tree: TreePlan, host: str) -> str:
    """The folder that dsdoctor's own files lie in beside a tree: the tree's, or the one that holds it."""
    place = tree.places[host]
    return place if tree.same and not tree.file else posixpath.dirname(place)


def copied(done: Done) -> str:
    """What a copy did, in words."""
    files, deleted = done.numbers.get("files", 0), done.numbers.get("deleted", 0)
    words = f"{files} file{'' if files == 1 else 's'} copied, {amount(done.numbers.get('bytes', 0))}"
    return f"{words}, {deleted} deleted" if deleted else words


def amount(size: float) -> str:
    """Bytes as a person reads them, in powers of 1,000."""
    if size < 1000:
        return f"{size:.0f} B"
    for unit in ("kB", "MB", "GB"):
        size /= 1000
        if size < 1000:
            return f"{size:.1f} {unit}"
    return f"{size / 1000:.1f} TB"


def free(room: dict[str, Any]) -> str:
    """What is free there, in words."""
    if "free" not in room:
        return "what is free there is not known"
    files = f" and room for {room['files']} files" if room.get("files") is not None else ""
    return f"{amount(room['free'])}{files} are free there ({room['at']})"
