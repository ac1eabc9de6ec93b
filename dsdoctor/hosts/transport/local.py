"""This machine as a host: the same interface without a connection."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Sequence

from dsdoctor.cluster import HostEntry
from dsdoctor.hosts.transport import Completed, TransportError
from dsdoctor.hosts.transport.child import ChildProcess, Children, bury, close_stdin, collect, spawn


class LocalTransport:
    """Commands on this machine, in dsdoctor's own folder and environment, each in a session of its own."""

    def __init__(self, host: HostEntry) -> None:
        self.host = host
        self._running = Children()

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout: float = 30.0) -> Completed:
        """Run a command to its end; see :class:`dsdoctor.hosts.transport.Transport`."""
        self._refuse_when_closed()
        process = spawn(argv)
        self._running.add(process)
        try:
            output, error = collect(process, stdin, timeout)
        finally:
            bury(process)
        self._refuse_when_closed()
        return Completed(process.returncode, bytes(output.data), bytes(error.data), output.truncated or error.truncated)

    def start(self, argv: Sequence[str]) -> ChildProcess:
        """Start a command with its three streams as pipes; it outlives the transport unless it is closed."""
        self._refuse_when_closed()
        return ChildProcess(spawn(argv), code=int, drop=_let_go)

    def rsync_shell(self) -> None:
        """None: nothing has to be copied to this machine."""

    def close(self) -> None:
        """End what :meth:`run` has under way, from any thread."""
        self._running.close()

    def _refuse_when_closed(self) -> None:
        if self._running.closed:
            raise TransportError(self.host.name, "closed", "the transport was closed")


def _let_go(process: subprocess.Popen[bytes]) -> None:
    """End the process's standard input; its other streams and its exit code wait for whoever still reads them."""
    close_stdin(process)

    def follow() -> None:
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()
        process.wait()

    threading.Thread(target=follow, daemon=True).start()
