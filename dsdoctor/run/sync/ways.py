"""Coming to the hosts for a copy alone: one connection each, at once, and of facts only where the home folder is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from dsdoctor.cluster import HostEntry
from dsdoctor.hosts.transport import Transport, TransportError, TransportKind, connect
from dsdoctor.plan.model import HostPlan
from dsdoctor.run.sync.session import Session, SyncError

PARALLEL = 32


class Ways:
    """Connections that begin to open when this is made, while the caller goes on; use it as a context manager.

    They are the ssh client's own wherever there is one: rsync goes through nothing else, and one login does for both.
    """

    def __init__(
        self, entries: Sequence[HostEntry], kind: TransportKind = "auto", connect_timeout: float = 10.0
    ) -> None:
        """Begin to connect, each within so many seconds."""
        self.entries = tuple(entries)
        self.transports: dict[str, Transport] = {
            entry.name: connect(entry, kind, timeout=connect_timeout) for entry in self.entries
        }
        self.sessions: dict[str, Session] = {}
        self.lost: dict[str, str] = {}  # hosts that are not reached, and why
        self._pool = ThreadPoolExecutor(max_workers=max(1, min(PARALLEL, len(self.entries))))
        self._opening: dict[str, Future[object]] = {
            name: self._pool.submit(transport.rsync_shell) for name, transport in self.transports.items()
        }

    def homes(
        self, python: Callable[[HostEntry], str], setup: Sequence[str], *, lifeline: float, patience: float
    ) -> dict[str, str]:
        """Begin to talk with every other machine; returns its user's home folder by host. `lost` has the others.

        Args:
            python: names a host's interpreter.
            setup: the job's lines before it.
            lifeline: seconds of silence after which a host is given up.
            patience: the same until its first word.
        """
        far = [entry for entry in self.entries if not entry.local]
        for entry in far:
            host = HostPlan(entry.name, entry.processes, 0, 0, python(entry), "", "", False, {})
            self.sessions[entry.name] = Session(host, self.transports[entry.name], setup, lifeline, patience)
        homes: dict[str, str] = {}
        for entry, home in zip(far, self._pool.map(self._home, far), strict=True):
            if isinstance(home, str):
                homes[entry.name] = home
            else:
                self.lost[entry.name] = home.detail
                self.sessions.pop(entry.name).close()
        return homes

    def _home(self, entry: HostEntry) -> str | SyncError:
        try:
            self._opening[entry.name].result()
            return str(self.sessions[entry.name].ask("home")["home"])
        except SyncError as error:
            return error
        except TransportError as error:
            return SyncError(error.host, error.detail or error.problem)

    def __enter__(self) -> Ways:
        """Nothing more is done."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """End every connection, those that are being opened too."""
        if kind is None:
            list(self._pool.map(self._close, self.transports))
        else:  # its threads may wait for what only the end of the connections ends
            for name in self.transports:
                self.transports[name].close()
        self._pool.shutdown()

    def _close(self, name: str) -> None:
        if name in self.sessions:
            self.sessions[name].close()
        self.transports[name].close()
