"""Coming to the hosts for a copy alone: one connection each, at once, and of facts only where the home folder is.

The command that opens a connection stays: it says where the home is, lists folders, and holds the connection open for
rsync and the host's side. A host that has its files already is asked nothing else, and no Python starts there.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

from dsdoctor.cluster import HostEntry
from dsdoctor.hosts.transport import Transport, TransportError, TransportKind, connect

if TYPE_CHECKING:
    from dsdoctor.plan.model import HostPlan
    from dsdoctor.run.sync.opening import Opening
    from dsdoctor.run.sync.session import Session

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
        self._session: Callable[[HostEntry], Session]  # since the homes are known
        self.lost: dict[str, str] = {}  # hosts that are not reached, and why
        self._pool = ThreadPoolExecutor(max_workers=max(1, min(PARALLEL, len(self.entries))))
        self._openings: dict[str, Opening] = {}
        self._opened: dict[str, Future[str | None]] = {
            name: self._pool.submit(self._open, transport) for name, transport in self.transports.items()
        }

    def homes(
        self, python: Callable[[HostEntry], str], setup: Sequence[str], *, lifeline: float, patience: float
    ) -> dict[str, str]:
        """The user's home folder on every other machine that is reached, by host. `lost` has the others.

        Args:
            python: names a host's interpreter.
            setup: the job's lines before it.
            lifeline: seconds of silence after which a host is given up.
            patience: the same until its first word.
        """

        def session(entry: HostEntry) -> Session:
            from dsdoctor.plan.model import HostPlan
            from dsdoctor.run.sync.session import Session

            host = HostPlan(entry.name, entry.processes, 0, 0, python(entry), "", "", False, {})
            return Session(host, self.transports[entry.name], setup, lifeline, patience)

        self._session = session
        return self._told([entry for entry in self.entries if not entry.local], self._home)

    def unchanged(self, hosts: Iterable[HostPlan], source: str, exclude: Sequence[str], silence: float) -> list[str]:
        """The hosts whose code folder is dsdoctor's and holds all of this machine's, and nothing else."""
        from dsdoctor.run.sync.unchanged import list_command, list_here

        asked = {host.name: host.code_dir for host in hosts if host.name in self._openings}
        here = self._pool.submit(list_here, source, exclude)

        def there(name: str) -> list[bytes] | None:
            command = list_command(asked[name], exclude, marked=True)
            return self._openings[name].records(command, silence) if command else None

        found = dict(zip(asked, self._pool.map(there, asked), strict=True))
        wanted = here.result()
        return [name for name, records in found.items() if records and wanted and wanted == frozenset(records)]

    def talk(self, names: Collection[str]) -> None:
        """Begin to talk with hosts that are to get a copy; those where that does not work are `lost`."""
        self._told([entry for entry in self.entries if entry.name in names], self._greeted)

    def _open(self, transport: Transport) -> str | None:
        """Open a connection; returns the user's home folder there where that was told on the way."""
        from dsdoctor.hosts.transport.openssh import OpenSSHTransport
        from dsdoctor.run.sync.opening import Opening

        if not isinstance(transport, OpenSSHTransport):
            transport.rsync_shell()
            return None
        opening = self._openings[transport.host.name] = Opening(transport)
        return opening.home()

    def _home(self, entry: HostEntry) -> str:
        return self._opened[entry.name].result() or self._greeted(entry)

    def _greeted(self, entry: HostEntry) -> str:
        session = self.sessions.get(entry.name) or self._session(entry)
        self.sessions[entry.name] = session
        return str(session.ask("home")["home"])

    def _told(self, entries: Sequence[HostEntry], ask: Callable[[HostEntry], str]) -> dict[str, str]:
        """What hosts answer, all asked at once."""
        from dsdoctor.run.sync.errors import SyncError

        def attempt(entry: HostEntry) -> str | SyncError | TransportError:
            try:
                return ask(entry)
            except (SyncError, TransportError) as error:
                return error

        told: dict[str, str] = {}
        for entry, answer in zip(entries, self._pool.map(attempt, entries), strict=True):
            if isinstance(answer, str):
                told[entry.name] = answer
                continue
            self.lost[entry.name] = answer.detail or getattr(answer, "problem", "")
            session = self.sessions.pop(entry.name, None)
            if session is not None:
                session.close()
        return told

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
        for part in (self.sessions.get(name), self._openings.get(name), self.transports[name]):
            if part is not None:
                part.close()
