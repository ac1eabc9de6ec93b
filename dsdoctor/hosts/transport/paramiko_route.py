"""The way to a host's port for paramiko: a socket or a ProxyCommand, within a time limit, all closed in the end."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import IO, Any

import paramiko

from dsdoctor.cluster import ReachProblem
from dsdoctor.hosts.shown import shown
from dsdoctor.hosts.transport.ssh_messages import classify, condense
from dsdoctor.hosts.transport.ssh_settings import SshSettings


class LoginError(Exception):
    """The host was not reached: one of the known problems and what was said."""

    def __init__(self, problem: ReachProblem, detail: str) -> None:
        super().__init__(detail)
        self.problem = problem
        self.detail = detail


class Way:
    """All that one connection holds on this machine: sockets, jump hosts' transports, proxy processes."""

    def __init__(self) -> None:
        self._held: list[Callable[[], object]] = []
        self._lock = threading.Lock()
        self.closed = False
        self.noise: IO[bytes] | None = None  # where a ProxyCommand's standard error goes

    def said(self) -> str:
        """What a ProxyCommand said on standard error."""
        if self.noise is None:
            return ""
        return condense(os.pread(self.noise.fileno(), 4096, 0).decode("utf-8", "replace"))

    def hold(self, release: Callable[[], object]) -> None:
        """Remember how to let something go; done at once when the way was closed meanwhile."""
        with self._lock:
            if not self.closed:
                self._held.append(release)
                return
        release()

    def close(self) -> None:
        """Let all go, the last first. Any thread may do it; a connection being made ends then."""
        with self._lock:
            self.closed = True
            held, self._held = self._held, []
        for release in reversed(held):
            with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
                release()


@dataclass(frozen=True)
class Limit:
    """A point in time by which everything has to be done."""

    seconds: float
    at: float

    @classmethod
    def after(cls, seconds: float) -> Limit:
        """The point in time that many seconds from now."""
        return cls(seconds, time.monotonic() + seconds)

    def left(self) -> float:
        """Seconds left. Raises LoginError when there are none."""
        seconds = self.at - time.monotonic()
        if seconds <= 0:
            raise LoginError("timeout", f"not through after {self.seconds:g} s")
        return seconds


def tcp(settings: SshSettings, way: Way, limit: Limit) -> socket.socket:
    """A connection to the first address that answers."""
    failure: OSError | None = None
    for family, kind, protocol, _, address in _addresses(settings, limit):
        sock = socket.socket(family, kind, protocol)
        way.hold(partial(sock.shutdown, socket.SHUT_RDWR))  # wakes a thread that waits in connect
        sock.settimeout(limit.left())
        try:
            sock.connect(address)
        except OSError as error:
            failure = error
            sock.close()
            continue
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(OSError):  # a host that acknowledges nothing for two minutes is gone
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 120_000)
        return sock
    where = f"connect to host {settings.hostname} port {settings.port}"
    problems: dict[type[OSError], ReachProblem] = {ConnectionRefusedError: "refused", TimeoutError: "timeout"}
    words = failure.strerror or str(failure) if failure else "no address"
    problem = problems.get(type(failure)) if failure else "unresolvable"
    raise LoginError(problem or classify(words), f"{where}: {words}")


def _addresses(settings: SshSettings, limit: Limit) -> list[Any]:
    """The addresses of a name, asked for in a thread: a name server that is silent cannot be given a time limit."""
    answer: list[Any] = []

    def ask() -> None:
        try:
            answer.append(socket.getaddrinfo(settings.hostname, settings.port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            answer.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(limit.left())
    if not answer:
        limit.left()
        raise LoginError("timeout", f"no answer to the question for the address of {settings.hostname}")
    if isinstance(answer[0], Exception):
        words = getattr(answer[0], "strerror", None) or str(answer[0])
        raise LoginError("unresolvable", f"Could not resolve hostname {shown(settings.hostname)}: {words}")
    found: list[Any] = answer[0]
    return found


def proxy(command: str, way: Way) -> socket.socket:
    """Our end of a socket whose other end is a ProxyCommand's input and output."""
    ours, theirs = socket.socketpair()
    argv, end_of_it = ["sh", "-c", f"exec {command}"], theirs.fileno()
    way.noise = tempfile.TemporaryFile()  # noqa: SIM115 - the way closes it
    way.hold(way.noise.close)
    process = subprocess.Popen(argv, stdin=end_of_it, stdout=end_of_it, stderr=way.noise, start_new_session=True)
    theirs.close()

    def end() -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(5)

    way.hold(end)
    return ours
