"""Following a run that has a head of its own, and giving it a new one when that is gone."""

from __future__ import annotations

import os
import select
import signal
import time
from typing import TYPE_CHECKING

from dsdoctor.escape import escape, escape_block
from dsdoctor.terminal import say

if TYPE_CHECKING:
    from pathlib import Path

    from dsdoctor.run.directory import RunDirectory
    from dsdoctor.run.head import StartedHead

SHOWN_BEFORE = 4000  # bytes of the head's log that are shown when a shell comes back to it


class Growing:
    """A text file that another process writes: what is new in it, line by line."""

    def __init__(self, path: Path, offset: int | None = None) -> None:
        self.path = path
        self.offset = offset if offset is not None else self._near_the_end()
        self._rest = b""

    def _near_the_end(self) -> int:
        """Where the last lines begin."""
        try:
            with self.path.open("rb") as file:
                start = max(0, self.path.stat().st_size - SHOWN_BEFORE)
                file.seek(start)
                return start + (len(file.readline()) if start else 0)
        except OSError:
            return 0

    def new(self, whole: bool = True) -> str:
        """The lines that have come; with `whole` half a line waits for its other half."""
        try:
            with self.path.open("rb") as file:
                file.seek(self.offset)
                chunk = file.read(1 << 20)
        except OSError:
            return ""
        self.offset += len(chunk)
        lines, newline, self._rest = (self._rest + chunk).rpartition(b"\n")
        if not whole:
            lines, self._rest = lines + newline + self._rest, b""
        return (lines + newline if whole else lines).decode("utf-8", "replace")

    def show(self, whole: bool = True) -> None:
        """Say the lines that have come."""
        while text := self.new(whole):
            say(escape_block(text))


def until_up(run: RunDirectory, head: StartedHead) -> int:
    """Show what a new head says until its hosts run; Ctrl-C before that stops everything. Returns the exit code."""
    log = Growing(head.log, head.offset)
    stopping = False
    while True:
        try:
            log.show()
            ready, _, _ = select.select([head.up], [], [], 0.1)
            if not ready:
                continue
            if os.read(head.up, 16) and not stopping:
                log.show()
                say(f"\n{escape(run.name)} goes on by itself. To follow it: dsdoctor attach {escape(run.name)}")
                say(f"To end it: dsdoctor stop {escape(run.name)}")
                return 0
            if not _more_comes(head.up):
                return _answer_of(run, head, log)
        except KeyboardInterrupt:
            if stopping:
                raise
            stopping = True
            head.process.send_signal(signal.SIGINT)


def _answer_of(run: RunDirectory, head: StartedHead, log: Growing) -> int:
    """The exit code of a head that has ended its run; it may stay to end what it could not reach."""
    while run.holder() is not None and head.process.poll() is None:
        time.sleep(0.05)
    log.show(whole=False)
    code = head.process.poll()
    return exit_code_of(run) if code is None else code


def _more_comes(pipe: int) -> bool:
    """Whether the other end is still open."""
    ready, _, _ = select.select([pipe], [], [], 0)
    return not ready or bool(os.read(pipe, 16))


def come_back(run: RunDirectory) -> int:
    """Give a run whose head is gone a new one, and follow that. Returns the exit code."""
    from dsdoctor.run.head import start_head
    from dsdoctor.run.kept import load, secrets_wanted
    from dsdoctor.yamlfile import FileError

    kept = load(run)
    wanted = secrets_wanted(kept.plan)
    given = {name: os.environ[name] for name in wanted if name in os.environ}
    for name in given:
        say(f"{escape(name)} is taken from this shell: the run keeps no secrets")
    try:
        with run.locked(handed_on=True) as lock:
            begun = any(stage.attempts for stage in run.state().stages)
            # All hosts: which of them the variable is for is the plan's to say.
            secrets = {host.name: given for host in kept.plan.hosts}
            head = start_head(run, lock, secrets, copy=not begun)
    except FileError:
        if run.holder() is None:
            raise
        return follow(run, Growing(run.path / "head.log"))  # another shell was quicker
    say(f"{escape(run.name)} had no head any more: it has one again (process {head.process.pid})")
    return follow(run, Growing(head.log, head.offset), head)


def follow(run: RunDirectory, log: Growing, head: StartedHead | None = None) -> int:
    """Show what a run's head says until it ends; Ctrl-C leaves it running. Returns the run's exit code."""
    try:
        while run.holder() is not None and (head is None or head.process.poll() is None):
            log.show()
            time.sleep(0.2)
    except KeyboardInterrupt:
        say(f"\nleft; {escape(run.name)} goes on. dsdoctor attach {escape(run.name)} follows it again, ")
        say(f"dsdoctor stop {escape(run.name)} ends it")
        return 0
    log.show(whole=False)
    return exit_code_of(run)


def exit_code_of(run: RunDirectory) -> int:
    """What a launch of the run would have answered; 1 for one whose head is gone before its end."""
    state = run.state()
    if state.status == "running":
        say(f"the head of {escape(run.name)} is gone, its hosts may go on: dsdoctor attach {escape(run.name)}")
        return 1
    return {"done": 0, "failed": 1, "interrupted": 130}.get(state.status, 1)
