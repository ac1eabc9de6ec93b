"""A line between two guardians: words as JSON lines, signed and counted."""

import contextlib
import hashlib
import hmac
import json
import os
import socket
import threading
from typing import Any, Dict

GREETING = b"dsdoctor guardians "
LINE_SECONDS = 6.0  # a line on which nothing comes for so long is drawn anew
LIMIT = 1 << 22  # bytes of a word: the stacks of all ranks of a host

Word = Dict[str, Any]


class Line:
    """One connection between two guardians: JSON lines, signed and counted, so that nobody can add or repeat one."""

    def __init__(self, connection: socket.socket, key: bytes, listens: bool) -> None:
        """Greet and agree on a key. Raises OSError, also for a stranger on the other end."""
        self.connection, self._rest = connection, b""
        connection.settimeout(LINE_SECONDS)
        mine = os.urandom(16).hex().encode("ascii")
        if listens:  # it speaks first: a stranger's service at such a port is told nothing
            connection.sendall(GREETING + mine + b"\n")
            both = mine + self._raw()
        else:
            greeting = self._raw()
            if not greeting.startswith(GREETING):
                raise OSError("a stranger listens there")
            connection.sendall(mine + b"\n")
            both = greeting[len(GREETING) :] + mine
        self._key = hmac.new(key, both, hashlib.sha256).digest()
        self._ways = (b"from the first", b"to the first") if listens else (b"to the first", b"from the first")
        self._counts = [0, 0]
        self._lock = threading.Lock()

    def _raw(self) -> bytes:
        while b"\n" not in self._rest:
            chunk = self.connection.recv(65536)
            if not chunk or len(self._rest) > LIMIT:
                raise OSError("the line ended")
            self._rest += chunk
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def _signature(self, way: int, text: bytes) -> bytes:
        signed = b"%s %d " % (self._ways[way], self._counts[way]) + text
        self._counts[way] += 1
        return hmac.new(self._key, signed, hashlib.sha256).hexdigest().encode("ascii")

    def send(self, word: Word) -> None:
        """Send a word. Raises OSError."""
        text = json.dumps(word).encode("ascii")
        with self._lock:
            self.connection.sendall(self._signature(0, text) + b" " + text + b"\n")

    def receive(self) -> Word:
        """The next word. Raises OSError where none comes in time, or one that the other end has not signed."""
        signature, _, text = self._raw().partition(b" ")
        if not hmac.compare_digest(signature, self._signature(1, text)):
            raise OSError("a line that is not signed")
        try:
            word = json.loads(text.decode("ascii"))
        except ValueError:
            raise OSError("a line that is no word") from None
        return word if isinstance(word, dict) else {}

    def close(self) -> None:
        """End the line; who waits for a word on it is woken."""
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)
        self.connection.close()
