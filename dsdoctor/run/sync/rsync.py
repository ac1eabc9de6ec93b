"""Running rsync: its arguments, its progress, what its numbers and exit codes mean.

What every copy has in common: names are not read by any shell (`-s`), owners and devices are not carried over (`-rlpt`
and not `-a`: the files belong to whoever logs in), and a line that is silent for too long is given up.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import select
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from dsdoctor.hosts.transport import Transport
from dsdoctor.run.sync.errors import SyncError
from dsdoctor.run.sync.session import Session

KEPT = 8 << 20  # bytes of output looked at afterwards
TOLD_SECONDS = 0.2
GATHERED_SECONDS = 0.05  # rsync says how far it is with every file; read at once, that costs more than the copy
PROGRESS = re.compile(rb"(\d{1,3})%\s+([\d.,]+[kKMGT]?B/s)")
_NUMBERS = {
    "files": rb"Number of regular files transferred: ([\d,]+)",
    "bytes": rb"Total transferred file size: ([\d,]+)",
    "size": rb"Total file size: ([\d,]+)",
    "created": rb"Number of created files: ([\d,]+)",
    "deleted": rb"Number of deleted files: ([\d,]+)",
}
_SKIPPED = re.compile(rb'^skipping non-regular file "(.*)"$', re.MULTILINE)

_ITEM = re.compile(rb"([<>ch.][fdLDS][^ ]{9}|\*deleting) +(.*)")

OnProgress = Callable[[int, str], None]  # percent, rate


@dataclass(frozen=True)
class Done:
    """An rsync that ended. `said` and `errors` are the last of its two streams."""

    code: int
    said: bytes
    errors: bytes
    seconds: float
    timed_out: bool = False
    lost: bool = False  # neither it nor the host gave a sign of life, and it was ended
    numbers: dict[str, int] = field(default_factory=dict)

    @property
    def changed(self) -> bool:
        """Whether anything was copied, made or deleted."""
        return any(self.numbers.get(name, 0) for name in ("files", "created", "deleted"))

    @property
    def skipped(self) -> list[str]:
        """Sockets, pipes and devices that were left out."""
        return [name.decode("utf-8", "replace") for name in _SKIPPED.findall(self.said)]

    def items(self) -> list[tuple[str, str]]:
        """What `--itemize-changes` lists: eleven letters (rsync(1)) or `*deleting`, and the name."""
        rows = [_ITEM.fullmatch(line) for line in self.said.split(b"\n")]
        return [(row[1].decode("ascii"), unescaped(row[2])) for row in rows if row]


def unescaped(name: bytes) -> str:
    r"""A name as rsync prints it, `\#012` for a newline, as it is."""
    plain = re.sub(rb"\\#([0-3][0-7]{2})", lambda match: bytes([int(match.group(1), 8)]), name)
    return os.fsdecode(plain)


class Rsync:
    """The rsyncs of one sync, from several threads; `stop` ends all of them."""

    def __init__(self, timeout: float = 3600.0, silence: float = 20.0, program: str | None = None) -> None:
        """Find rsync.

        Args:
            timeout: seconds that one copy may take.
            silence: seconds without a byte after which the other side is given up.
            program: another rsync than the one on the PATH.

        Raises:
            SyncError: there is none.
        """
        found = program or shutil.which("rsync")
        if found is None:
            raise SyncError("this machine", "rsync is not installed. apt-get install rsync (or dnf install rsync)")
        self.program = found
        self.timeout = timeout
        self.silence = silence
        self._running: set[subprocess.Popen[bytes]] = set()
        self._stopped = False
        _dying_with_us()  # asked now: eight copies that begin at once would each ask

    def to(
        self,
        session: Session,
        options: Sequence[str],
        source: str,
        place: str,
        on_progress: OnProgress | None = None,
    ) -> Done:
        """Copy to a host, for as long as it is alive; `place` is a path there.

        Raises:
            SyncError: no copy can be made over this transport.
            TransportError: the host is not reached.
        """
        # The limit is the other side's: it ends by itself when this machine is gone. This side is watched better.
        base = [*shell_argv(self.program, session.transport), f"--timeout={round(max(60, 3 * self.silence))}"]
        argv = [*base, *options, "--", source, f"{target(session.transport)}:{place}"]
        return self.run(argv, on_progress, lambda: session.silent_for > self.silence)

    def run(
        self,
        argv: Sequence[str],
        on_progress: OnProgress | None = None,
        is_silent: Callable[[], bool] = lambda: False,
    ) -> Done:
        """Run an rsync to its end, or until it and the other side have been silent for too long."""
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            [*_dying_with_us(), *argv],
            stdin=subprocess.DEVNULL,
            stdout=pipe,
            stderr=pipe,
            start_new_session=True,
            env={**os.environ, "LC_ALL": "C"},  # its words and numbers are read
        )
        self._running.add(process)
        if self._stopped:
            _end(process)
        began = time.monotonic()
        with process:
            reading = _Reading(process, on_progress)
            timed_out = lost = False
            while reading.read():
                timed_out = timed_out or time.monotonic() - began > self.timeout
                lost = lost or (reading.silent_for > self.silence and is_silent())
                if timed_out or lost:
                    _end(process)
            code = process.wait()
        self._running.discard(process)
        said, errors = reading.said, reading.errors
        return Done(code, said, errors, time.monotonic() - began, timed_out, lost, _numbers(said))

    def stop(self) -> None:
        """End what is under way, and what would begin."""
        self._stopped = True
        for process in list(self._running):
            _end(process)


class _Reading:
    """The two streams of a process, its progress handed on."""

    def __init__(self, process: subprocess.Popen[bytes], on_progress: OnProgress | None) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        self._process = process
        self._output, self._error = process.stdout.fileno(), process.stderr.fileno()
        self._open = {self._output, self._error}
        self._on_progress = on_progress
        self._told = 0.0
        self._heard = time.monotonic()
        self._said = bytearray()
        self.errors = b""

    @property
    def said(self) -> bytes:
        """The last of what it printed."""
        return bytes(self._said[-KEPT:])

    @property
    def silent_for(self) -> float:
        """Seconds since anything was read."""
        return time.monotonic() - self._heard

    def read(self) -> bool:
        """Take what there is, after a second at most; False at the end."""
        ended = self._process.poll() is not None
        ready = select.select(list(self._open), [], [], 0.2 if ended else 1.0)[0]
        if self._output in ready and self._error in self._open and self._error not in ready:
            ready += select.select([self._error], [], [], GATHERED_SECONDS)[0]  # its end tells that rsync's came
        for stream in ready:
            chunk = os.read(stream, 65536)
            if not chunk:
                self._open.discard(stream)
            elif stream == self._error:
                self.errors = (self.errors + chunk)[-KEPT:]
            else:
                self._take(chunk)
        # The connection that several clients share may keep the error stream of one that was ended.
        return bool(self._open) and (bool(ready) or not ended)

    def _take(self, chunk: bytes) -> None:
        self._said += chunk
        if len(self._said) > 2 * KEPT:
            del self._said[:-KEPT]
        self._heard = time.monotonic()
        seen = PROGRESS.findall(chunk)
        if seen and self._on_progress is not None and time.monotonic() - self._told > TOLD_SECONDS:
            self._told = time.monotonic()
            self._on_progress(min(99, int(seen[-1][0])), seen[-1][1].decode("ascii"))


@functools.cache
def _dying_with_us() -> tuple[str, ...]:
    """What ends a copy when this process is killed: it would go on, and nobody would hold the folder's lock."""
    setpriv = shutil.which("setpriv")  # util-linux 2.33 knows the option
    if setpriv is None:
        return ()
    argv = (setpriv, "--pdeathsig", "KILL")
    null = subprocess.DEVNULL
    return argv if subprocess.run([*argv, "true"], stdout=null, stderr=null, check=False).returncode == 0 else ()


def _numbers(said: bytes) -> dict[str, int]:
    found = {name: re.search(pattern, said) for name, pattern in _NUMBERS.items()}
    return {name: int(match.group(1).replace(b",", b"")) for name, match in found.items() if match}


def _end(process: subprocess.Popen[bytes]) -> None:
    """End an rsync with the ssh that it started: they are a session of their own."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def shell_argv(rsync: str, transport: Transport) -> list[str]:
    """The beginning of every copy over a transport. Raises SyncError where it carries no files."""
    shell = transport.rsync_shell()
    if shell is None:
        name = transport.host.name
        raise SyncError(name, "files cannot be copied over this transport; an ssh client on this machine is needed")
    return [rsync, "-rlpt", "-s", "-8", "-e", shlex.join(shell[0])]


def target(transport: Transport) -> str:
    """The host part of rsync's target."""
    shell = transport.rsync_shell()
    return shell[1] if shell else ""


def explain(done: Done, place: str, host: str, silence: float) -> str:
    """What rsync's exit code and messages mean (rsync(1), EXIT VALUES), with the mend."""
    text = done.errors.decode("utf-8", "replace").strip()
    lines = [line for line in text.splitlines() if line.strip()]
    detail = next(
        (line for line in lines if "rsync error" not in line), lines[-1] if lines else f"exit code {done.code}"
    )
    if done.timed_out:
        return f"copying took longer than {done.seconds:.0f} s and was given up"
    if is_full(done):
        return f"no space left for {place}: {detail}"
    if done.code in (12, 127) and ("not found" in text or "No such file" in text):
        return f"rsync is not installed there. apt-get install rsync (or dnf install rsync) on {host}"
    if done.code == 255:
        return f"the connection was lost while copying: {detail}"
    if done.lost or done.code == 30:
        return f"nothing came for {silence:.0f} s while copying, and the host was given up"
    if "is your shell clean" in text:
        return f"the login shell there prints something before rsync can speak. See: ssh {host} true | od -c"
    unread = [line.split('"')[1] for line in lines if line.startswith("rsync: [sender]") and '"' in line]
    if done.code == 23 and unread:
        more = f" and {len(unread) - 1} more" if len(unread) > 1 else ""
        return (
            f"{unread[0]}{more} cannot be read here ({detail.rpartition(': ')[2]}). Mend that, or exclude: sync.exclude"
        )
    return f"rsync ended with code {done.code}: {detail}"


def is_full(done: Done) -> bool:
    """Whether the other side has no room: bytes, files or quota."""
    return b"No space left" in done.errors or b"quota exceeded" in done.errors.lower()
