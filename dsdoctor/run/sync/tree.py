"""Copying data or a model to one host, unless it has them whole: by size and time, resumable, nothing ever deleted.

Links that lead out of the tree are followed: what the hub's cache keeps as `snapshots/…/model.safetensors` is a link to
its `blobs/`, and a link alone is no model.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from dsdoctor.plan.model import TreePlan
from dsdoctor.run.events import Copying
from dsdoctor.run.sync.errors import SyncError
from dsdoctor.run.sync.host_side import OWN, PARTIAL
from dsdoctor.run.sync.parts import Got, Host, amount, free, holder
from dsdoctor.run.sync.rsync import Done, OnProgress, Rsync, explain
from dsdoctor.run.sync.session import Session
from dsdoctor.run.sync.view import relation

ATTEMPTS = 3
KEEP = "--ignore-existing"  # of a folder that is not dsdoctor's: what is there has been looked at, and stays


@dataclass(frozen=True)
class Lack:
    """What a host lacks of a tree: files and bytes to copy, and what is there beside it."""

    files: int
    size: int
    resized: tuple[str, ...] = ()  # there, with another size
    redated: tuple[str, ...] = ()  # there in the same size, with another time
    extra: tuple[str, ...] = ()  # there and not here
    changed: tuple[str, ...] = ()  # there with another content; known when contents were compared (--checksum)

    @property
    def whole(self) -> bool:
        """Whether nothing is to be copied."""
        return self.files == 0


class Tree:
    """Data or a model of this machine, on its way to the hosts."""

    def __init__(self, rsync: Rsync, tree: TreePlan) -> None:
        self.rsync = rsync
        self.tree = tree
        self.kind = tree.kind
        self._source = tree.source if tree.file else f"{tree.source.rstrip('/')}/"
        self.left_out = tuple(f"--exclude=/{name}" for name in OWN)
        self._options = ["-L" if tree.file else "--copy-unsafe-links", *self.left_out]

    def lack(self, session: Session, place: str, *more: str) -> Lack:
        """What of the tree is not at a place of the host.

        Raises:
            SyncError: that cannot be told.
        """
        beside = [] if self.tree.file else ["--delete"]  # with --dry-run: names what it would delete
        options = [*self._options, "--dry-run", "--itemize-changes", "--info=stats2", *beside, *more]
        done = self.rsync.to(session, options, self._source, self._end(place))
        if done.code not in (0, 24):
            raise SyncError(session.host.name, self._told(done, session, place))
        files = [(change, name) for change, name in done.items() if change[1:2] == "f"]
        return Lack(
            files=sum(1 for change, _ in files if change[0] == "<"),
            size=done.numbers.get("bytes", 0),
            resized=tuple(name for change, name in files if change[2:4] != "++" and change[3] == "s"),
            redated=tuple(name for change, name in files if change[2:4] != "++" and change[3:5] == ".t"),
            extra=tuple(name for change, name in done.items() if change == "*deleting"),
            changed=tuple(name for change, name in files if change[2:3] == "c"),
        )

    def at_hand(self, session: Session, there: dict[str, Any]) -> str | None:
        """Where the host has the tree whole without any copy of dsdoctor's, under the path that it has here."""
        place = self.tree.places[session.host.name]
        wanted = "file" if self.tree.file else "folder"
        if self.tree.same or there["there"] not in ("none", "link"):
            return None
        if there["elsewhere"] in (wanted, "link") and self.lack(session, self.tree.source).whole:
            if there["there"] == "none":
                self._checked(session, session.ask("link", place=place, target=self.tree.source))
            return self.tree.source
        if there["there"] == "link":
            self._checked(session, session.ask("link", place=place, target=""))
        return None

    def wanted(self, session: Session, there: dict[str, Any]) -> Lack:
        """What is to be copied to the host.

        Raises:
            SyncError: there is no room for it, or what is there is not dsdoctor's and differs.
        """
        place = self.tree.places[session.host.name]
        lack = self.lack(session, place)
        if lack.whole:
            return lack
        if not there["ours"] and (lack.resized or lack.redated):
            other = lack.resized or self.lack(session, place, "--checksum").changed
            if other:
                raise SyncError(
                    session.host.name,
                    f"sync.{self.kind}: {place} has other contents than {self.tree.source} here "
                    f"({', '.join(other[:3])}); dsdoctor did not put it there, and leaves it alone. Move it away, or "
                    "let it be copied elsewhere: at: work",
                )
            lack = replace(self.lack(session, place, KEEP), extra=lack.extra)  # the same, copied without its times
            if lack.whole:
                return lack
        room = session.ask("space", path=place)
        if "free" in room and room["free"] < lack.size:
            raise SyncError(session.host.name, f"sync.{self.kind}: {self._too_much(lack, room)}. Nothing was copied")
        if room.get("files") is not None and room["files"] < lack.files:
            raise SyncError(session.host.name, f"sync.{self.kind}: {self._too_much(lack, room)}. Nothing was copied")
        return lack

    def copy(self, session: Session, there: dict[str, Any], on_progress: OnProgress) -> Done:
        """Copy what is lacking and look again.

        Raises:
            SyncError: it did not work; what has arrived stays and is gone on with next time.
        """
        place = self.tree.places[session.host.name]
        kept = [] if there["ours"] else [KEEP]
        options = [*self._options, *kept, f"--partial-dir={PARTIAL}", "--info=progress2,stats2,nonreg"]
        if there.get("temp"):
            options.append(f"--temp-dir={there['temp']}")
        first: Done | None = None
        for _ in range(ATTEMPTS):
            done = self.rsync.to(session, options, self._source, self._end(place), on_progress)
            if done.code not in (0, 24):
                raise SyncError(session.host.name, self._told(done, session, place))
            first = first or done
            if self.lack(session, place, *kept).whole:
                return first
        raise SyncError(
            session.host.name,
            f"sync.{self.kind}: {self.tree.source} changes while it is copied; wait until it is whole",
        )

    def _end(self, place: str) -> str:
        return f"{posixpath.dirname(place)}/" if self.tree.file else f"{place}/"

    def _too_much(self, lack: Lack, room: dict[str, Any]) -> str:
        return f"{amount(lack.size)} in {lack.files} files are to be copied, and {free(room)}"

    def _told(self, done: Done, session: Session, place: str) -> str:
        return f"sync.{self.kind}: {explain(done, place, session.host.name, self.rsync.silence)}"

    def _checked(self, session: Session, answer: dict[str, Any]) -> None:
        if "error" in answer:
            raise SyncError(session.host.name, f"{answer.get('path') or 'the folder'}: {answer['error']}")


class TreeGiver:
    """Decides for each host whether a tree is to be copied there, and has it done."""

    def __init__(self, tree: Tree, progress: Callable[[Copying], None]) -> None:
        self.tree, self.plan, self.kind = tree, tree.tree, tree.kind
        self.progress = progress

    def decide(self, group: list[Host]) -> Got | Lack:
        """What the first of hosts that share a folder lacks, or how it has the tree already.

        Raises:
            SyncError: it must not be copied there.
        """
        first = group[0]
        got = self._seen(group)
        if got is not None:
            return got
        self._refuse(first)
        lack = self.tree.wanted(first.session, first.opened["trees"][self.kind])
        if not lack.whole:
            return lack
        place = self.plan.places[first.name]
        return Got(first.name, self.kind, "there", f"{place} is whole", self._warnings(first, lack))

    def copy(self, host: Host) -> None:
        """Copy to a host from here. Raises SyncError."""

        def tell(percent: int, rate: str) -> None:
            self.progress(Copying(host.name, percent, self.kind, rate))

        self.tree.copy(host.session, host.opened["trees"][self.kind], tell)

    def done(self, host: Host, lack: Lack, by_whom: str | None = None) -> Got:
        """That a host has now what it lacked."""
        files = f"{lack.files} file{'' if lack.files == 1 else 's'} copied, {amount(lack.size)}"
        handed = f", handed on by {by_whom}" if by_whom else ""
        return Got(host.name, self.kind, "copied", files + handed, self._warnings(host, lack))

    def _seen(self, group: list[Host]) -> Got | None:
        """How a host has the tree without a copy: it sees this machine's, or has it whole under its path here."""
        first, source = group[0], self.plan.source
        place, folder = self.plan.places[first.name], holder(self.plan, first.name)
        if folder == place:
            own = relation(folder, first.token, source) == "same"
        else:
            own = posixpath.basename(place) == posixpath.basename(source)
            own = own and relation(folder, first.token, posixpath.dirname(source)) == "same"
        if own:
            return Got(first.name, self.kind, "shares", f"sees this machine's own {source}; nothing is copied")
        if any(host.opened["trees"][self.kind]["elsewhere"] == "none" for host in group):
            return None
        found = self.tree.at_hand(first.session, first.opened["trees"][self.kind])
        return Got(first.name, self.kind, "there", f"{found} is whole") if found else None

    def _refuse(self, host: Host) -> None:
        there, place = host.opened["trees"][self.kind], self.plan.places[host.name]
        folder = holder(self.plan, host.name)
        if there.get("claim") == "foreign":
            raise SyncError(
                host.name,
                f"sync.{self.kind}: {folder} holds files that dsdoctor did not put there, and is left alone. Move them "
                "away, or give another work folder: workdir= in the hostfile",
            )
        if relation(folder, host.token, self.plan.source) == "inside":
            raise SyncError(
                host.name,
                f"sync.{self.kind}: {place} lies in {self.plan.source} itself, which this machine shares. Give another "
                "folder: workdir= in the hostfile",
            )

    def _warnings(self, host: Host, lack: Lack) -> tuple[str, ...]:
        if not lack.extra:
            return ()
        count = f"{len(lack.extra)} file{'' if len(lack.extra) == 1 else 's'}"
        few = ", ".join(lack.extra[:3])
        return (
            f"{host.name} has {count} in {self.plan.places[host.name]} that {'is' if len(lack.extra) == 1 else 'are'} "
            f"not here ({few}); left alone, and the job there may read them",
        )
