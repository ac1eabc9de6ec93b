"""Copying the code to one host: into a folder of dsdoctor's own, made equal to this machine's, verified.

The tree that is there stays whole until the new one has arrived: files are put aside and moved into place at the end
(`--delay-updates`), and what is not here any more is deleted last. A folder that runs are using is not changed.
"""

from __future__ import annotations

import contextlib
import posixpath
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from stat import S_ISLNK
from threading import Lock
from typing import Any

from dsdoctor.run.events import Copying
from dsdoctor.run.sync.errors import SyncError
from dsdoctor.run.sync.host_side import TOKENS
from dsdoctor.run.sync.parts import Got, Host, amount, copied, free
from dsdoctor.run.sync.rsync import Done, OnProgress, Rsync, explain, is_full
from dsdoctor.run.sync.session import Session
from dsdoctor.run.sync.source import look
from dsdoctor.run.sync.use import in_use, this_head
from dsdoctor.run.sync.view import relation

BY_CHECKSUM = 256 << 20  # bytes of code up to which a copy is compared by content; rsync compared what it sent anyway
UPDATE = ("--delay-updates", "--delete-delay")
ATTEMPTS = 3  # a file may change while it is copied


class Code:
    """The code of this machine, on its way to the hosts."""

    def __init__(self, rsync: Rsync, source: str, exclude: Sequence[str]) -> None:
        self.rsync = rsync
        self.source = f"{source.rstrip('/')}/"
        self.exclude = tuple(exclude)
        self.excludes = [f"--exclude={pattern}" for pattern in exclude]
        self._lock = Lock()  # several hosts are done at the same moment
        self._links: list[tuple[str, str]] | None = None
        self._looking = Lock()
        self._before = self._now = look(self.source, self.exclude)
        self._looked = time.monotonic()

    def copy(self, session: Session, new: bool, on_progress: OnProgress) -> tuple[Done, list[str]]:
        """Make the host's folder equal to this one; returns what the last rsync did, and warnings.

        `new` says that nothing is there yet that must stay usable meanwhile.

        Raises:
            SyncError: it did not work; what was there before is still whole.
            TransportError: the host is not reached.
        """
        host, place = session.host, f"{session.host.code_dir}/"
        total: Done | None = None
        differing: list[str] = []
        for attempt in range(ATTEMPTS):
            options = ["--delete-delay"] if new and not attempt else list(UPDATE)
            options += [*self.excludes, "--info=progress2,stats2,nonreg"]
            done = self.rsync.to(session, options, self.source, place, on_progress)
            if done.code not in (0, 24):  # 24: a file was gone before it was its turn
                raise SyncError(host.name, self._failure(done, session))
            total = total or done
            if not done.changed and done.code == 0:
                return total, self._warnings(session, total)
            if done.code == 0 and self.as_before(time.monotonic()):
                # rsync held each file that it sent against a checksum of the whole; here nothing changed meanwhile.
                return total, self._warnings(session, total)
            differing = self.differences(session, by_content=done.numbers.get("size", 0) <= BY_CHECKSUM)
            if not differing:
                return total, self._warnings(session, total)
        more = f" and {len(differing) - 1} more" if len(differing) > 1 else ""
        what = f"{differing[0]}{more}"
        message = f"the copy differs from this machine's files after {ATTEMPTS} attempts: {what}. Is it being changed?"
        raise SyncError(host.name, f"{message} What changes all the time may be left out: sync.exclude")

    def as_before(self, ended: float) -> bool:
        """Whether nothing changed here until a copy `ended`. One look does for all copies that ended before it."""
        with self._looking:
            if self._looked <= ended:
                self._looked = time.monotonic()
                self._now = look(self.source, self.exclude)
            return self._before is not None and self._before == self._now

    def differences(self, session: Session, by_content: bool = False) -> list[str]:
        """The names of what a copy would change on the host.

        Raises:
            SyncError: they cannot be compared.
        """
        options = ["--dry-run", "--itemize-changes", "--delete", *self.excludes, *(["-c"] if by_content else [])]
        done = self.rsync.to(session, options, self.source, f"{session.host.code_dir}/")
        if done.code not in (0, 24):
            raise SyncError(session.host.name, self._failure(done, session))
        return [name for change, name in done.items() if change[0] in "<c*"]

    def _failure(self, done: Done, session: Session) -> str:
        words = explain(done, session.host.code_dir, session.host.name, self.rsync.silence)
        if not is_full(done):
            return words
        room = session.ask("sweep", code=session.host.code_dir)
        return f"{words}. {self.wanted(room)}; what was there is untouched"

    def wanted(self, room: dict[str, Any]) -> str:
        """How much the whole code takes, and what is free on the host."""
        size, files = self._extent
        return f"The code takes {amount(size)} in {files} files and folders; {free(room)}"

    @cached_property
    def _extent(self) -> tuple[int, int]:
        with tempfile.TemporaryDirectory() as empty:
            argv = [self.rsync.program, "-rl", "--dry-run", "--stats", *self.excludes, "--", self.source, empty]
            numbers = self.rsync.run(argv).numbers
        return numbers.get("size", 0), numbers.get("created", 0)

    def _warnings(self, session: Session, done: Done) -> list[str]:
        warnings = []
        if done.skipped:
            names = ", ".join(done.skipped[:3])
            warnings.append(f"sockets, pipes and devices are not copied: {names}")
        outward = self._outward() if done.changed else []
        if outward:
            answer = session.ask("missing", paths=[self._there(session, *each) for each in outward])
            missing = set(answer.get("paths", []))
            lost = [each for each in outward if self._there(session, *each) in missing]
            for name, leads in lost[:3]:
                warnings.append(
                    f"{name} is a link to {leads}, which leads out of the code and nowhere on {session.host.name}; "
                    "copy what it leads to (sync.data, sync.model), or put it into the code's folder"
                )
        return warnings

    def _outward(self) -> list[tuple[str, str]]:
        """Links of the tree that lead out of it, to something that is here: (name, where to). Looked for once."""
        with self._lock:
            if self._links is None:
                has_links = self._before is None or any(S_ISLNK(row[-1]) for row in self._before.values())
                self._links = self._look_for_links() if has_links else []
            return self._links

    def _look_for_links(self) -> list[tuple[str, str]]:
        with tempfile.TemporaryDirectory() as empty:
            argv = [self.rsync.program, "-rl", "--dry-run", "--out-format=%i %n%L", *self.excludes]
            done = self.rsync.run([*argv, "--", self.source, empty])
        found = []
        for change, text in done.items():
            name, arrow, leads = text.partition(" -> ")
            if change[1:2] == "L" and arrow and _leads_out(name, leads) and Path(self.source, name).exists():
                found.append((name, leads))
        return found

    def _there(self, session: Session, name: str, leads: str) -> str:
        return posixpath.normpath(posixpath.join(session.host.code_dir, posixpath.dirname(name), leads))


def _leads_out(name: str, leads: str) -> bool:
    inside = posixpath.normpath(posixpath.join(posixpath.dirname(name), leads))
    return inside.startswith(("/", "../")) or inside == ".."


class CodeGiver:
    """Decides for each host whether the code is to be copied there, and has it done."""

    def __init__(self, code: Code, run: str, directory: str, progress: Callable[[Copying], None]) -> None:
        """Nothing is done yet. `run` is empty when the copy is for no run; `directory` is the run's, here."""
        self.code, self.run, self.directory = code, run, directory
        self.progress = progress

    def give(self, group: list[Host]) -> Got:
        """Give the code to the first of hosts that share a folder.

        Raises:
            SyncError: it must not be copied there, or cannot.
        """
        first = group[0]
        place, source = first.session.host.code_dir, self.code.source
        lies = relation(place, first.token, source)
        foreign = first.opened["code"] == "foreign"
        if lies == "same" or (foreign and self._is_source(first)):
            self.progress(Copying(first.name, 100, "code"))
            return Got(first.name, "code", "shares", "works in this machine's own folder; nothing is copied")
        if foreign:
            raise SyncError(
                first.name,
                f"{place} holds files that dsdoctor did not put there, and is left alone. Move them away, or "
                "give another folder: workdir= in the hostfile",
            )
        if lies in ("inside", "around"):
            raise SyncError(
                first.name,
                f"{place} and the code's folder {source} lie in each other (this machine shares that file system), so "
                "the code would be copied onto itself. Give another folder: workdir= in the hostfile",
            )
        got = self._in_use(group) or self._copied(first)
        if self.run:
            first.session.ask("note", code=place, run=self.run, head=this_head(), directory=self.directory)
        self.progress(Copying(first.name, 100, "code"))
        return got

    def _in_use(self, group: list[Host]) -> Got | None:
        """That a run is using the very same code; None where nobody uses the folder."""
        who = next((words for words in (in_use(host.opened, host.name) for host in group) if words), None)
        if who is None:
            return None
        first = group[0]
        differing = self.code.differences(first.session)
        if differing:
            some = f"{differing[0]} and {len(differing) - 1} more" if len(differing) > 1 else differing[0]
            raise SyncError(
                first.name,
                f"{who} uses {first.session.host.code_dir}, and a copy would change {some} under its feet. Wait for it "
                "or stop it, or give this one a folder of its own: workdir= in the hostfile",
            )
        return Got(first.name, "code", "there", f"unchanged, and used by {who}")

    def _copied(self, host: Host) -> Got:
        began = time.monotonic()

        def tell(percent: int, rate: str) -> None:
            self.progress(Copying(host.name, percent, "code", rate))

        done, warnings = self.code.copy(host.session, host.opened["code"] == "new", tell)
        seconds = time.monotonic() - began
        if not done.changed:
            return Got(host.name, "code", "there", "unchanged", tuple(warnings), seconds)
        return Got(host.name, "code", "copied", copied(done), tuple(warnings), seconds)

    def _is_source(self, host: Host) -> bool:
        """Whether the foreign folder is this machine's own: a token is put here and looked for there."""
        token = Path(self.code.source, TOKENS, host.token)
        try:
            token.parent.mkdir(exist_ok=True)
            token.touch()
        except OSError:
            return False
        try:
            answer = host.session.ask("look", folders={"code": host.session.host.code_dir}, names=[host.token])
            return host.token in answer.get("code", [])
        finally:
            token.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                token.parent.rmdir()
