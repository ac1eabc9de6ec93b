"""Hosts through paramiko: for machines without an ssh client and hosts that want a password.

The same door as ssh where paramiko can (see ssh_settings.py), a clear refusal where it cannot; never a weaker one.
"""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dsdoctor.cluster import HostEntry
from dsdoctor.hosts.shown import said, shown
from dsdoctor.hosts.transport import Completed, TransportError
from dsdoctor.hosts.transport.openssh import LOGIN_SECONDS
from dsdoctor.hosts.transport.quoting import exit_code, remote_command, take_own_255
from dsdoctor.hosts.transport.ssh_settings import UnsupportedSettingError, read_settings

if TYPE_CHECKING:  # 0.2 s to import
    import paramiko

    from dsdoctor.hosts.transport.paramiko_process import ChannelProcess
    from dsdoctor.hosts.transport.paramiko_route import Way


class ParamikoTransport:
    """Commands on a host through paramiko, all over one connection. `config_file` stands in for the user's settings."""

    def __init__(
        self,
        host: HostEntry,
        *,
        connect_timeout: float = 10.0,
        config_file: str | Path | None = None,
        password: str | None = None,
    ) -> None:
        self.host = host
        self.connect_timeout = connect_timeout
        self._config_file = config_file
        self._password = password
        self._connecting = threading.Lock()
        self._opening = threading.Lock()
        self._transport: paramiko.Transport | None = None
        self._way: Way | None = None
        self._closed = False

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout: float = 30.0) -> Completed:
        """Run a command to its end; see :class:`dsdoctor.hosts.transport.Transport`."""
        from dsdoctor.hosts.transport.paramiko_talk import talk

        channel = self._channel(remote_command(argv, timeout))
        try:
            output, error, truncated = talk(channel, argv, stdin, timeout)
        finally:
            with contextlib.suppress(OSError, EOFError):
                channel.close()
        own_255, stderr = take_own_255(error)
        code = 255 if channel.exit_status < 0 else exit_code(channel.exit_status)
        if code == 255 and not own_255 and not truncated:
            self._refuse_when_closed()
            words = f": {said(stderr)}" if stderr.strip() else ""
            raise TransportError(self.host.name, "closed", f"the connection ended before the command did{words}")
        return Completed(code, output, stderr, truncated)

    def start(self, argv: Sequence[str]) -> ChannelProcess:
        """Start a command with its three streams as pipes; its exit code is 255 when the connection was lost."""
        from dsdoctor.hosts.transport.paramiko_process import ChannelProcess

        return ChannelProcess(self._channel(remote_command(argv)), argv)

    def open(self) -> None:
        """Connect and log in, unless that is done. Raises TransportError."""
        self._connect()

    def rsync_shell(self) -> tuple[list[str], str]:
        """An ssh command of its own, since rsync cannot go through paramiko.

        Raises:
            TransportError: there is no ssh client.
        """
        if shutil.which("ssh") is None:
            raise TransportError(self.host.name, "unsupported", "rsync needs an ssh client: install openssh-client")
        argv = ["ssh", *(["-F", str(self._config_file)] if self._config_file else [])]
        argv += ["-o", "BatchMode=yes", "-o", f"ConnectTimeout={max(1, round(self.connect_timeout))}"]
        name = f"[{self.host.name}]" if ":" in self.host.name else self.host.name
        where = f"{self.host.user}@{name}" if self.host.user else name
        return argv + (["-p", str(self.host.port)] if self.host.port else []), where

    def close(self) -> None:
        """End the connection and all commands on it, from any thread."""
        self._closed = True
        if self._way is not None:
            self._way.close()

    def _channel(self, command: str) -> paramiko.Channel:
        """A channel on which the command runs."""
        import paramiko

        transport = self._connect()
        try:
            channel = self._session(transport)
            channel.exec_command(command.encode("utf-8", "surrogateescape"))
        except (paramiko.SSHException, EOFError, OSError) as error:
            self._refuse_when_closed()
            raise TransportError(self.host.name, "closed", shown(str(error) or "the connection ended")) from None
        return channel

    def _session(self, transport: paramiko.Transport) -> paramiko.Channel:
        """A new session. sshd allows ten at a time (MaxSessions): one more waits until another has ended."""
        import paramiko

        limit = self.connect_timeout + LOGIN_SECONDS
        deadline = time.monotonic() + limit
        while True:
            try:
                with self._opening:  # paramiko keeps one error for all threads
                    return transport.open_session(timeout=limit)
            except paramiko.SSHException:
                if time.monotonic() > deadline or not transport.is_active():
                    raise
                time.sleep(0.1)

    def _connect(self) -> paramiko.Transport:
        """The open connection, or a new one, after at most `connect_timeout` + LOGIN_SECONDS."""
        from dsdoctor.hosts.transport.paramiko_login import log_in, rest
        from dsdoctor.hosts.transport.paramiko_route import Limit, LoginError, Way

        with self._connecting:
            self._refuse_when_closed()
            if self._transport is not None and self._transport.is_active():
                return self._transport
            if self._way is not None:
                self._way.close()
            self._way = Way()
            if self._closed:
                self._way.close()
            limit = Limit.after(self.connect_timeout + LOGIN_SECONDS)
            try:
                settings = read_settings(self.host.name, self.host.user, self.host.port, self._config_file)
                self._transport = log_in(settings, self._way, limit, self._password, self._config_file)
            except (UnsupportedSettingError, LoginError) as error:
                self._way.close()
                self._refuse_when_closed()
                problem = error.problem if isinstance(error, LoginError) else "unsupported"
                raise TransportError(self.host.name, problem, shown(str(error), 600)) from None
            self._transport.set_keepalive(15)
            rest(self._transport, self._way)
            return self._transport

    def _refuse_when_closed(self) -> None:
        if self._closed:
            raise TransportError(self.host.name, "closed", "the transport was closed")
