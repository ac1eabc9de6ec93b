"""Processes on this machine that a transport starts: the command itself, or the ssh client that carries it."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any, Protocol

from dsdoctor.hosts.transport import OUTPUT_LIMIT

CHUNK = 1 << 16
# How long output is waited for after the end of the process: something that it left behind may hold the streams open.
LINGER_SECONDS = 0.5
TICK_SECONDS = 0.25  # how often the end of a process is looked for: it may come without an end of its streams


class Piped(Protocol):
    """What :func:`collect` needs: a child process of this machine, or a command on a channel with pipes of its own."""

    @property
    def args(self) -> Any:
        """The command, for the error message."""

    @property
    def stdin(self) -> IO[bytes] | None:
        """A pipe to write to."""

    @property
    def stdout(self) -> IO[bytes] | None:
        """A pipe to read from."""

    @property
    def stderr(self) -> IO[bytes] | None:
        """A pipe to read from."""

    def poll(self) -> int | None:
        """The exit code, or None while it runs."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end; raises subprocess.TimeoutExpired."""


class Capture:
    """What came of a stream, up to a limit; the rest is read and dropped, so that the writer never blocks."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.data = bytearray()
        self.truncated = False

    def add(self, chunk: bytes) -> None:
        """Take what was read."""
        room = self.limit - len(self.data)
        self.data += chunk[:room]
        self.truncated = self.truncated or len(chunk) > room


def captures() -> tuple[Capture, Capture]:
    """What is kept of standard output and of standard error."""
    return Capture(OUTPUT_LIMIT), Capture(OUTPUT_LIMIT)


def spawn(argv: Sequence[str], env: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Start a process with three pipes, in a session of its own: a Ctrl-C at the terminal is not for it to see.

    A program that is not there is a process that says so and ends with 127 (126: it cannot be executed), as in a shell.
    """
    pipe = subprocess.PIPE
    try:
        return subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe, env=env, start_new_session=True)
    except OSError as error:
        code = "127" if isinstance(error, FileNotFoundError) else "126"
        excuse = ["sh", "-c", 'printf "%s: %s\\n" "$1" "$2" >&2; exit "$3"', "sh", argv[0], error.strerror or "", code]
        return subprocess.Popen(excuse, stdin=pipe, stdout=pipe, stderr=pipe, env=env, start_new_session=True)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process of :func:`spawn` and what it started in its session. Any thread may ask for that."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)


def bury(process: subprocess.Popen[bytes]) -> None:
    """End a process as :func:`end` does, take its exit code and close its streams, in the thread that read them."""
    end(process)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=5)  # longer only for one that the kernel holds
    close_stdin(process)
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()


def close_stdin(process: Piped) -> None:
    """Close a process's standard input; what stands unwritten before a full pipe is dropped."""
    if process.stdin is not None:
        with contextlib.suppress(OSError, ValueError):
            os.set_blocking(process.stdin.fileno(), False)
            process.stdin.close()


def collect(process: Piped, stdin: bytes, timeout: float) -> tuple[Capture, Capture]:
    """Feed a process and read both its streams at once until it ends; returns standard output and error.

    Raises:
        subprocess.TimeoutExpired: it runs longer than `timeout` seconds; it still runs, what it said is in the error.
    """
    assert process.stdin and process.stdout and process.stderr
    deadline = time.monotonic() + timeout
    taken = dict(zip((process.stdout, process.stderr), captures(), strict=True))
    reading = set(taken)
    quiet_since: float | None = None  # the end of the process, or what came last after it
    with selectors.DefaultSelector() as selector:
        for stream in taken:
            selector.register(stream, selectors.EVENT_READ, stream)
        feed = _Feed(process.stdin, stdin)
        if feed.left:
            selector.register(process.stdin, selectors.EVENT_WRITE)
        while reading:
            now = time.monotonic()
            if now > deadline:
                _expired(process, timeout, taken)
            if quiet_since is not None and now - quiet_since > LINGER_SECONDS:
                break
            for key, _ in selector.select(min(TICK_SECONDS, deadline - now)):
                if key.data is None:
                    if not feed.write():
                        selector.unregister(key.fileobj)
                        close_stdin(process)
                    continue
                chunk = os.read(key.fd, CHUNK)
                taken[key.data].add(chunk)
                quiet_since = quiet_since and time.monotonic()
                if not chunk:
                    selector.unregister(key.fileobj)
                    reading.discard(key.data)
            if quiet_since is None and process.poll() is not None:
                quiet_since = time.monotonic()
    try:
        process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        _expired(process, timeout, taken)
    return taken[process.stdout], taken[process.stderr]


def _expired(process: Piped, timeout: float, taken: Mapping[IO[bytes], Capture]) -> None:
    output, error = (bytes(capture.data) for capture in taken.values())
    raise subprocess.TimeoutExpired(process.args, timeout, output, error)


class _Feed:
    """Standard input in pieces, without ever waiting for the reader."""

    def __init__(self, stream: IO[bytes], data: bytes) -> None:
        self.stream = stream
        self.left = memoryview(data)
        os.set_blocking(stream.fileno(), False)
        if not data:
            stream.close()

    def write(self) -> bool:
        """Write what fits; False when nothing is left to write or nobody reads any more."""
        try:
            self.left = self.left[os.write(self.stream.fileno(), self.left[:CHUNK]) :]
        except BlockingIOError:
            return True
        except BrokenPipeError:
            self.left = self.left[:0]
        return bool(self.left)


class ChildProcess:
    """A :class:`RemoteProcess` carried by a process of this machine."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        code: Callable[[int], int],
        drop: Callable[[subprocess.Popen[bytes]], None],
    ) -> None:
        assert process.stdin and process.stdout and process.stderr
        self.stdin: IO[bytes] = process.stdin
        self.stdout: IO[bytes] = process.stdout
        self.stderr: IO[bytes] = process.stderr
        self._process = process
        self._code = code
        self._drop = drop

    def poll(self) -> int | None:
        """The exit code, or None while it runs."""
        status = self._process.poll()
        return None if status is None else self._code(status)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end and return the exit code; raises subprocess.TimeoutExpired."""
        return self._code(self._process.wait(timeout))

    def close(self) -> None:
        """Drop the connection to the command."""
        self._drop(self._process)


class Children:
    """The processes that a transport has under way, so that closing it from another thread ends them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._live: set[subprocess.Popen[bytes]] = set()
        self.closed = False

    def add(self, process: subprocess.Popen[bytes]) -> None:
        """Keep an eye on a process; when all was closed meanwhile it is ended at once."""
        with self._lock:
            self._live = {each for each in self._live if each.returncode is None} | {process}
            closed = self.closed
        if closed:
            end(process)

    def discard(self, process: subprocess.Popen[bytes]) -> None:
        """Forget a process that has ended or is let go."""
        with self._lock:
            self._live.discard(process)

    def close(self) -> None:
        """End all processes; those added later are ended at once."""
        with self._lock:
            self.closed = True
            live, self._live = self._live, set()
        for process in live:
            end(process)
