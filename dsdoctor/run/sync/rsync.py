"""Running rsync: its arguments, its progress, what its numbers and exit codes mean.

What every copy has in common: names are not read by any shell (`-s`), owners and devices are not carried over (`-rlpt`
and not `-a`: the files belong to whoever logs in), and a line that is silent for too long is given up (`--timeout`).
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from dsdoctor.hosts.transport import Transport
from dsdoctor.run.sync.session import SyncError

KEPT = 8 << 20  # bytes of output looked at afterwards
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

    def to(
        self,
        transport: Transport,
        options: Sequence[str],
        source: str,
        place: str,
        on_progress: OnProgress | None = None,
        given: bytes | None = None,
    ) -> Done:
        """Copy to a host; `place` is a path there.

        Raises:
            SyncError: no copy can be made over this transport.
            TransportError: the host is not reached.
        """
        base = [*shell_argv(self.program, transport), f"--timeout={max(1, round(self.silence))}"]
        return self.run([*base, *options, "--", source, f"{target(transport)}:{place}"], on_progress, given)

    def run(self, argv: Sequence[str], on_progress: OnProgress | None = None, given: bytes | None = None) -> Done:
        """Run an rsync to its end."""
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            argv,
            stdin=pipe if given is not None else subprocess.DEVNULL,
            stdout=pipe,
            stderr=pipe,
            start_new_session=True,
            env={**os.environ, "LC_ALL": "C"},  # its words and numbers are read
        )
        self._running.add(process)
        if self._stopped:
            _end(process)
        timer = threading.Timer(self.timeout, _end, (process,))
        began = time.monotonic()
        timer.start()
        with process:
            said, errors = _read(process, on_progress, given)
            code = process.wait()
        timer.cancel()
        self._running.discard(process)
        seconds = time.monotonic() - began
        return Done(code, said, errors, seconds, code < 0 and seconds >= self.timeout, _numbers(said))

    def stop(self) -> None:
        """End what is under way, and what would begin."""
        self._stopped = True
        for process in list(self._running):
            _end(process)


def _read(process: subprocess.Popen[bytes], on_progress: OnProgress | None, given: bytes | None) -> tuple[bytes, bytes]:
    assert process.stdout is not None
    assert process.stderr is not None
    kept: list[bytes] = [b""]

    def errors() -> None:
        assert process.stderr is not None
        while chunk := os.read(process.stderr.fileno(), 65536):
            kept[0] = (kept[0] + chunk)[-KEPT:]

    def feed() -> None:
        assert process.stdin is not None
        with contextlib.suppress(OSError):
            process.stdin.write(given or b"")
            process.stdin.close()

    threads = [threading.Thread(target=each) for each in ((errors, feed) if given is not None else (errors,))]
    for thread in threads:
        thread.start()
    said = b""
    while chunk := os.read(process.stdout.fileno(), 65536):
        said = (said + chunk)[-KEPT:]
        seen = PROGRESS.findall(chunk)
        if seen and on_progress is not None:
            on_progress(min(99, int(seen[-1][0])), seen[-1][1].decode("ascii"))
    for thread in threads:
        thread.join()
    return said, kept[0]


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
    if done.code == 30:
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
