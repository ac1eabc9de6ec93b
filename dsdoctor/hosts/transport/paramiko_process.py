"""A command on a paramiko channel with real pipes for its three streams, like a child process of this machine."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from typing import IO, TYPE_CHECKING

from dsdoctor.hosts.transport.quoting import exit_code

if TYPE_CHECKING:
    import paramiko

CHUNK = 1 << 15  # a packet


class ChannelProcess:
    """A :class:`RemoteProcess` over a channel. Threads move the streams, so that neither can hold up the other."""

    def __init__(self, channel: paramiko.Channel, argv: Sequence[str]) -> None:
        self.args = list(argv)
        self.channel = channel
        source, self.stdin = _pipe("wb")
        self.stdout, output = _pipe_from()
        self.stderr, error = _pipe_from()
        for target, arguments in (
            (self._feed, (source,)),
            (_pump, (channel.recv, output)),
            (_pump, (channel.recv_stderr, error)),
        ):
            threading.Thread(target=target, args=arguments, daemon=True).start()

    def status(self) -> int | None:
        """What the host's shell said; -1 when the channel ended without a word, None while it is open."""
        channel = self.channel
        if channel.status_event.is_set() or channel.closed:
            return channel.exit_status
        return None

    def poll(self) -> int | None:
        """The exit code, or None while it runs."""
        status = self.status()
        return None if status is None else 255 if status < 0 else exit_code(status)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end and return the exit code; raises subprocess.TimeoutExpired."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            left = 0.5 if deadline is None else deadline - time.monotonic()
            if left <= 0:
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
            self.channel.status_event.wait(min(left, 0.5))  # a lost connection does not always set it
        return code

    def close(self) -> None:
        """Drop the channel; the command's standard input ends."""
        with contextlib.suppress(OSError, EOFError):
            self.channel.close()
        with contextlib.suppress(OSError, ValueError):
            os.set_blocking(self.stdin.fileno(), False)
            self.stdin.close()
        self.stdout.close()
        self.stderr.close()

    def _feed(self, source: int) -> None:
        try:
            while data := os.read(source, CHUNK):
                self.channel.sendall(data)
            self.channel.shutdown_write()
        except (OSError, EOFError):
            pass  # nobody reads any more: the writer sees a broken pipe, as with a child process
        finally:
            os.close(source)


def _pump(receive: Callable[[int], bytes], target: int) -> None:
    """Move a stream into a pipe; when nobody reads the pipe, read on, so that the other streams are not held up."""
    reader_gone = False
    try:
        while data := receive(CHUNK):
            while data and not reader_gone:
                try:
                    data = data[os.write(target, data) :]
                except BrokenPipeError:
                    reader_gone = True
    except (OSError, EOFError):
        pass
    finally:
        os.close(target)


def _pipe(mode: str) -> tuple[int, IO[bytes]]:
    read, write = os.pipe()
    return read, os.fdopen(write, mode)


def _pipe_from() -> tuple[IO[bytes], int]:
    read, write = os.pipe()
    return os.fdopen(read, "rb"), write
