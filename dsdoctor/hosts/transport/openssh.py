"""Hosts through the user's own ssh client: the door by which rsync and DeepSpeed come in, too.

One connection a host is opened once and shared by all commands (ControlMaster, its socket in a private folder). The
user's configuration, keys and known_hosts are used as they are; checking of host keys is never weakened.
"""

from __future__ import annotations

import atexit
import contextlib
import math
import os
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

from dsdoctor.cluster import HostEntry, ReachProblem
from dsdoctor.hosts.shown import said
from dsdoctor.hosts.transport import Completed, TransportError
from dsdoctor.hosts.transport.child import ChildProcess, Children, bury, collect, spawn
from dsdoctor.hosts.transport.quoting import exit_code, remote_command, take_own_255
from dsdoctor.hosts.transport.ssh_messages import classify, condense

# Idle seconds after which a kept connection ends by itself, should dsdoctor be killed before it could end it.
PERSIST_SECONDS = 60
# A host that says nothing for 15 s × 8 is gone; shorter would end jobs on hosts that swap.
KEEPALIVE = ("-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=8")
# ssh's ConnectTimeout covers connecting and the other side's first line; key exchange and login get this much more.
LOGIN_SECONDS = 5.0


class OpenSSHTransport:
    """Commands on a host through `ssh`. `config_file` is for `ssh -F`; without it the user's own files are read."""

    def __init__(
        self,
        host: HostEntry,
        *,
        connect_timeout: float = 10.0,
        config_file: str | Path | None = None,
        program: str = "ssh",
    ) -> None:
        self.host = host
        self.connect_timeout = connect_timeout
        self._program = program
        self._config_file = config_file
        self._children = Children()
        self._connecting = threading.Lock()
        self._folder: Path | None = None

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout: float = 30.0) -> Completed:
        """Run a command to its end; see :class:`dsdoctor.hosts.transport.Transport`."""
        command = remote_command(argv, timeout)
        self._connect()
        process = self._spawn([*self._client(), "--", self.host.name, command])
        try:
            output, error = collect(process, stdin, timeout)
        except subprocess.TimeoutExpired as expired:
            raise subprocess.TimeoutExpired(list(argv), timeout, expired.output, expired.stderr) from None
        finally:
            bury(process)
        own_255, stderr = take_own_255(bytes(error.data))
        if process.returncode < 0 or (process.returncode == 255 and not own_255 and not error.truncated):
            raise self._lost(stderr)
        code = exit_code(process.returncode)
        return Completed(code, bytes(output.data), stderr, output.truncated or error.truncated)

    def start(self, argv: Sequence[str]) -> ChildProcess:
        """Start a command with its three streams as pipes.

        Its exit code is 255 when the connection was lost, or when the command itself ended so, which a last line on
        standard error says then.
        """
        command = remote_command(argv)
        self._connect()
        process = self._spawn([*self._client(), "--", self.host.name, command])
        return ChildProcess(process, code=lambda status: 255 if status < 0 else exit_code(status), drop=bury)

    def begin(self, argv: Sequence[str]) -> ChildProcess:
        """Start a command with the client that opens the connection, which ends with the command: one client less.

        Others go through it as soon as the command has said something. :meth:`refusal` tells what the end of one that
        never did means.
        """
        with self._connecting:
            self._refuse_when_closed()
            self._make_folder()
            master = ["-o", "ControlMaster=yes", "-o", "ControlPersist=no", *KEEPALIVE]
            argv = [*self._client("INFO"), *master, "--", self.host.name, remote_command(argv)]
        process = self._spawn(argv)
        return ChildProcess(process, code=lambda status: 255 if status < 0 else exit_code(status), drop=bury)

    def refusal(self, text: str) -> TransportError:
        """Why a connection was not opened, from what the client said."""
        self._refuse_when_closed()
        if "UNKNOWN port" in text:  # a jump host or ProxyCommand failed, whose words a kept connection hides
            code, words = self._attempt([*self._client("INFO", shared=False), "--", self.host.name, "exit 0"])
            text = words if code == 255 else text
        return TransportError(self.host.name, self._problem(text), condense(text) or "ssh gave no reason")

    def rsync_shell(self) -> tuple[list[str], str]:
        """The ssh command over the kept connection, and `user@host` with an IPv6 address in brackets."""
        self._connect()
        name = f"[{self.host.name}]" if ":" in self.host.name else self.host.name
        return self._client(), f"{self.host.user}@{name}" if self.host.user else name

    def close(self) -> None:
        """End the kept connection and every client, from any thread, and remove the private folder."""
        self._children.close()
        with self._connecting:
            folder, self._folder = self._folder, None
        if folder is None:
            return
        if (folder / "s").exists():
            self._control("exit", folder)
        shutil.rmtree(folder, ignore_errors=True)
        atexit.unregister(self.close)

    def _client(self, level: str = "ERROR", shared: bool = True) -> list[str]:
        """The argv of a client, up to the host. LogLevel: what a command says must not be mixed with ssh's talk."""
        assert self._folder is not None
        settings = {
            "BatchMode": "yes",
            "ConnectTimeout": str(max(1, math.ceil(self.connect_timeout))),
            "ControlPath": str(self._folder / "s") if shared else "none",
            "ClearAllForwardings": "yes",  # a port to forward may be taken by another ssh of the user's
            "LogLevel": level,
        }
        argv = [self._program, *(["-F", str(self._config_file)] if self._config_file else []), "-T", "-x"]
        for name, value in settings.items():
            argv += ["-o", f"{name}={value}"]
        argv += ["-l", self.host.user] if self.host.user else []
        return argv + (["-p", str(self.host.port)] if self.host.port else [])

    def _connect(self) -> None:
        """Open the connection that all commands share, unless it is open.

        Raises:
            TransportError: after at most `connect_timeout` + LOGIN_SECONDS.
        """
        with self._connecting:
            self._refuse_when_closed()
            if (self._make_folder() / "s").exists():
                return
            master = ["-N", "-o", "ControlMaster=yes", "-o", f"ControlPersist={PERSIST_SECONDS}", *KEEPALIVE]
            code, text = self._attempt([*self._client("INFO"), *master, "--", self.host.name])
            if code == 0:
                return
            raise self.refusal(text)

    def _make_folder(self) -> Path:
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="dsd-", dir=_short_folder()))
            atexit.register(self.close)
        return self._folder

    def _attempt(self, argv: list[str]) -> tuple[int, str]:
        """Run a client that has nothing to say but why it failed; returns its exit code and words."""
        limit = self.connect_timeout + LOGIN_SECONDS
        process = self._spawn(argv)
        try:
            _, error = collect(process, b"", limit)
        except subprocess.TimeoutExpired as expired:
            words = condense((expired.stderr or b"").decode("utf-8", "replace"))
            detail = f"ssh was not through after {limit:g} s" + (f" ({words})" if words else "")
            raise TransportError(self.host.name, "timeout", detail) from None
        finally:
            bury(process)
        self._refuse_when_closed()
        return process.returncode, error.data.decode("utf-8", "replace")

    def _spawn(self, argv: list[str]) -> subprocess.Popen[bytes]:
        # No window may pop up for a password: BatchMode does not reach the ssh that a ProxyJump starts.
        # SSH_ASKPASS_REQUIRE is OpenSSH 8.4's; before that a program that says nothing has to do.
        process = spawn(argv, {**os.environ, "SSH_ASKPASS_REQUIRE": "never", "SSH_ASKPASS": "/bin/false"})
        self._children.add(process)
        return process

    def _problem(self, text: str) -> ReachProblem:
        missing = shutil.which(self._program) is None
        return "unsupported" if missing else classify(text)

    def _lost(self, stderr: bytes) -> TransportError:
        """The error for a client that ended without the command's own exit code; the connection is given up."""
        self._refuse_when_closed()
        with self._connecting, contextlib.suppress(OSError):
            if self._folder is not None:
                (self._folder / "s").unlink()
        text = stderr.decode("utf-8", "replace")
        problem = classify(text)
        if problem == "unsupported":
            return TransportError(self.host.name, problem, condense(text))
        # Other words may be the command's own: they are evidence, not the reason.
        detail = "the connection ended before the command did"
        return TransportError(self.host.name, "closed", f"{detail}: {said(stderr)}" if text.strip() else detail)

    def _refuse_when_closed(self) -> None:
        if self._children.closed:
            raise TransportError(self.host.name, "closed", "the transport was closed")

    def _control(self, word: str, folder: Path) -> None:
        argv = [self._program, *(["-F", str(self._config_file)] if self._config_file else [])]
        argv += ["-o", f"ControlPath={folder / 's'}", "-O", word, "--", self.host.name]
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            null = subprocess.DEVNULL
            subprocess.run(argv, stdin=null, stdout=null, stderr=null, timeout=3, check=False, start_new_session=True)


def _short_folder() -> str:
    """A folder for sockets: a socket's path has at most 107 bytes, of which ssh needs 17 for itself, and no `%`."""
    folder = tempfile.gettempdir()
    return folder if len(folder) <= 60 and re.fullmatch(r"[\w/.-]+", folder, re.ASCII) else "/tmp"  # noqa: S108
