"""How commands get to a host: one interface, three ways (OpenSSH, paramiko, this machine).

Every transport takes an argument list and quotes it itself; no caller ever builds a shell line. A transport that
cannot get to the host raises :class:`TransportError` with one of the problems of :data:`dsdoctor.cluster.ReachProblem`,
within its time limit.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal, Protocol

from dsdoctor.cluster import HostEntry, ReachProblem

OUTPUT_LIMIT = 64 << 20  # bytes kept of each stream of a command


class TransportError(Exception):
    """The host could not be reached, or the connection was lost. `detail` is what the other side or ssh said."""

    def __init__(self, host: str, problem: ReachProblem, detail: str) -> None:
        super().__init__(f"{host}: {problem}: {detail}")
        self.host = host
        self.problem = problem
        self.detail = detail


@dataclass(frozen=True)
class Completed:
    """A command that ended. Negative return codes are signals, as in subprocess."""

    returncode: int
    stdout: bytes
    stderr: bytes
    truncated: bool = False  # a stream was longer than OUTPUT_LIMIT; the rest was read and dropped


class RemoteProcess(Protocol):
    """A command that runs on a host. Closing `stdin` tells it that nothing more comes."""

    stdin: IO[bytes]
    stdout: IO[bytes]
    stderr: IO[bytes]

    def poll(self) -> int | None:
        """The exit code, or None while it runs. 255 may mean that the connection was lost."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end and return the exit code; raises subprocess.TimeoutExpired."""

    def close(self) -> None:
        """Drop the connection to the command (not a kill: what runs there notices its standard input ending)."""


class Transport(Protocol):
    """A way to one host. Connections are kept for the life of the object; :meth:`close` ends them."""

    host: HostEntry

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout: float = 30.0) -> Completed:
        """Run a command to its end, both output streams drained at once.

        Raises:
            TransportError: the host was not reached, or the connection broke.
            subprocess.TimeoutExpired: the command took longer than `timeout` seconds (it is stopped).
        """

    def start(self, argv: Sequence[str]) -> RemoteProcess:
        """Start a command with its three streams as pipes. Raises TransportError when that can be told at once."""

    def rsync_shell(self) -> tuple[list[str], str] | None:
        """What rsync needs: the argv for `-e`, and the host part before the colon; None for this machine."""

    def close(self) -> None:
        """End kept connections and remove what the transport made on this machine."""


TransportKind = Literal["auto", "openssh", "paramiko"]


def connect(
    entry: HostEntry,
    kind: TransportKind = "auto",
    *,
    timeout: float = 10.0,
    config_file: str | Path | None = None,
    one_of_many: bool = False,
) -> Transport:
    """The way to a host. Nothing is opened before the first command.

    `auto` takes the ssh client, through which rsync and DeepSpeed go too, and paramiko where there is none, or for a
    host that is `one_of_many`, where that does the same as the user's ssh (see :mod:`.swift`). `timeout` bounds
    connecting, in seconds; login may take 5 more. `config_file` (or $DSDOCTOR_SSH_CONFIG) stands in for the user's ssh
    settings, like `ssh -F`. With $DSDOCTOR_SSH_PASSWORD, which only paramiko can hand over, `auto` takes it.
    """
    if entry.local:
        from dsdoctor.hosts.transport.local import LocalTransport

        return LocalTransport(entry)
    config_file = config_file or os.environ.get("DSDOCTOR_SSH_CONFIG") or None
    password = os.environ.get("DSDOCTOR_SSH_PASSWORD")
    if kind == "paramiko" or (kind == "auto" and (password is not None or shutil.which("ssh") is None)):
        from dsdoctor.hosts.transport.paramiko_ssh import ParamikoTransport

        return ParamikoTransport(entry, connect_timeout=timeout, config_file=config_file, password=password)
    if kind == "auto" and one_of_many:
        from dsdoctor.hosts.transport.swift import SwiftTransport

        return SwiftTransport(entry, connect_timeout=timeout, config_file=config_file)
    from dsdoctor.hosts.transport.openssh import OpenSSHTransport

    return OpenSSHTransport(entry, connect_timeout=timeout, config_file=config_file)
