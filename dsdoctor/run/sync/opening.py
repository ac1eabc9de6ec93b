"""The command that opens a host's connection: it says where the home is, lists folders, and ends with its input."""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import subprocess
import time

from dsdoctor.hosts.transport import TransportError
from dsdoctor.hosts.transport.openssh import LOGIN_SECONDS, OpenSSHTransport
from dsdoctor.hosts.transport.quoting import prefaced

CHUNK = 1 << 16
LIMIT = 32 << 20  # bytes of one answer
_DONE = b"\0<<<dsdoctor-listed\0"  # no record of find's: those hold two slashes
# A line at a time is read and run; what comes before the first words is a login shell's.
_SCRIPT = 'printf "<<<dsdoctor-home %s home>>>" "$HOME"; while IFS= read -r line; do eval "$line"; done; '
_HOME = re.compile(rb"<<<dsdoctor-home (.*?) home>>>", re.DOTALL)


class Opening:
    """One host's connection, from its first byte on. Used by one thread at a time."""

    def __init__(self, transport: OpenSSHTransport) -> None:
        """Begin to connect. Raises TransportError where the transport was closed."""
        self._transport = transport
        self._process = transport.begin(prefaced(_SCRIPT, ["true"]))
        self._said = bytearray()
        self._errors = bytearray()
        self._ended = False  # it says no more
        self._stuck = False  # it goes on about what nobody waits for any more

    def home(self) -> str:
        """The user's home folder; the connection is open then.

        Raises:
            TransportError: it was not opened, or no shell answered.
        """
        limit = self._transport.connect_timeout + LOGIN_SECONDS
        deadline = time.monotonic() + limit
        found = None
        while not found and not self._ended and time.monotonic() < deadline:
            self._read(deadline - time.monotonic())
            found = _HOME.search(bytes(self._said))
        if found:
            del self._said[: found.end()]
            return os.fsdecode(found[1])
        self._process.close()
        if not self._ended:
            name = self._transport.host.name
            raise TransportError(name, "timeout", f"no shell answered within {limit:g} s of connecting")
        raise self._transport.refusal(self._errors.decode("utf-8", "replace"))

    def records(self, command: str, silence: float) -> list[bytes] | None:
        """What a line of sh prints, parted at zero bytes; None where the host ended or was silent for so many seconds.

        After a None it is not asked again.
        """
        line = f"{command}; printf '{_DONE.decode()}'".replace("\0", r"\0")
        with contextlib.suppress(OSError, ValueError):
            self._process.stdin.write(os.fsencode(line) + b"\n")
            self._process.stdin.flush()
        while not self._said.endswith(_DONE):
            if self._ended or not self._read(silence) or len(self._said) > LIMIT:
                self._said.clear()
                self._stuck = True
                return None
        records = bytes(self._said).removesuffix(_DONE).split(b"\0")
        self._said.clear()
        return records[:-1] if not records[-1] else records

    def close(self) -> None:
        """End it, and with it the connection, once nothing else uses that."""
        with contextlib.suppress(OSError, ValueError):
            self._process.stdin.close()
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            self._process.wait(timeout=0 if self._stuck else 3)
        self._process.close()

    def _read(self, limit: float) -> bool:
        """Take what comes, within so many seconds; False when nothing did."""
        with selectors.DefaultSelector() as selector:
            for stream in (self._process.stdout, self._process.stderr):
                selector.register(stream, selectors.EVENT_READ, stream is self._process.stdout)
            ready = selector.select(max(0.0, limit))
        for key, _ in ready:
            chunk = os.read(key.fd, CHUNK)
            kept = self._said if key.data else self._errors
            kept += chunk
            self._ended = self._ended or (bool(key.data) and not chunk)
        return bool(ready)
