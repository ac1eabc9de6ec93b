"""The head's end of a host's side of a sync: started once a host, asked in lines, dropped when the copying is done."""

from __future__ import annotations

import binascii
import contextlib
import json
import marshal
import queue
import subprocess
import threading
import time
from collections.abc import Sequence
from typing import Any

from dsdoctor.hosts.gather import with_setup
from dsdoctor.hosts.sent import BOOT, pack
from dsdoctor.hosts.transport import RemoteProcess, Transport, TransportError
from dsdoctor.plan.model import HostPlan
from dsdoctor.run.sync import host_side
from dsdoctor.run.sync.errors import SyncError
from dsdoctor.run.sync.host_side import MARK, PING, PONG

LINE_LIMIT = 16 << 20  # bytes of an answer
PING_SECONDS = 10.0  # at most between two pings; the host's side gives up after 60 s without a word
ANSWER_SECONDS = 120.0  # for one question, on a host that is alive


_PACKING = threading.Lock()


def program() -> bytes:
    """The host's side as it is sent: its code as this Python compiled it, and its text for any other Python."""
    with _PACKING:  # eight hosts ask for it at once, and one answer does for all
        return pack(host_side.__name__, entry=("conversation", "converse"), needs="a sync", refusal="%s\n")


class Session:
    """One host during one sync. `ask` may be called by one thread at a time."""

    def __init__(
        self,
        host: HostPlan,
        transport: Transport,
        setup: Sequence[str] = (),
        lifeline: float = 20.0,
        patience: float = 30.0,
    ) -> None:
        """Nothing is started before the first question.

        `lifeline` is how long the host may be silent, in seconds. Until its first word, when it may be busy with the
        job's setup lines or with a slow disk under its Python, that is `patience` where it is longer.
        """
        self.host = host
        self.transport = transport
        self._setup = setup
        self._lifeline, self._patience = lifeline, max(patience, lifeline)
        self._heard = time.monotonic()
        self._greeted = False
        self._process: RemoteProcess | None = None
        self._answers: queue.Queue[bytes | None] = queue.Queue()
        self._errors = threading.Thread()
        self._noise: list[bytes] = []
        self._writing = threading.Lock()
        self._closed = threading.Event()

    def ask(self, what: str, **order: Any) -> dict[str, Any]:
        """The host's answer to a question of :mod:`dsdoctor.run.sync.host_side`; it may hold `error`.

        Raises:
            SyncError: the host is not reached, says something else, or nothing in time.
        """
        if self._process is None:
            self._start()
        self._write(binascii.hexlify(marshal.dumps({"do": what, **order}, 2)) + b"\n")
        line = self._answer()
        if line is None:
            self._answers.put(None)
            self._errors.join(timeout=1)
            said = [each.decode("utf-8", "replace").strip() for each in self._noise]
            words = next((each for each in reversed(said) if each), "the connection ended")
            raise SyncError(self.host.name, f"the folders could not be prepared: {words}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    @property
    def silent_for(self) -> float:
        """Seconds since the host was heard last; it is asked for a sign of life all the while."""
        return time.monotonic() - self._heard

    def _answer(self) -> bytes | None:
        """The next answer; None when the line has ended."""
        deadline = time.monotonic() + ANSWER_SECONDS
        while True:
            try:
                return self._answers.get(timeout=min(0.5, self._lifeline))
            except queue.Empty:
                limit = self._lifeline if self._greeted else self._patience
                if self.silent_for > limit or time.monotonic() > deadline:
                    raise SyncError(self.host.name, f"no answer for {self.silent_for:.0f} s") from None

    def close(self) -> None:
        """Hang up: the host's side takes its traces away and ends."""
        self._closed.set()
        process = self._process
        if process is None:
            return
        with contextlib.suppress(OSError, ValueError):
            process.stdin.close()
        try:
            process.wait(timeout=3)
        except (OSError, subprocess.TimeoutExpired):  # on a line that is dead: nobody waits for that
            threading.Thread(target=process.close, daemon=True).start()
        else:
            process.close()

    def _start(self) -> None:
        if self._closed.is_set():
            raise SyncError(self.host.name, "the sync was ended")
        try:
            process = self.transport.start(with_setup([self.host.python, "-u", "-S", "-c", BOOT], self._setup))
        except TransportError as error:
            raise SyncError(self.host.name, error.detail) from None
        self._process = process
        self._heard = time.monotonic()
        self._write(program())
        threading.Thread(target=self._read, args=(process,), daemon=True).start()
        self._errors = threading.Thread(target=self._read_errors, args=(process,), daemon=True)
        self._errors.start()
        threading.Thread(target=self._keep_alive, daemon=True).start()

    def _read(self, process: RemoteProcess) -> None:
        mark = MARK.encode("ascii")
        with contextlib.suppress(OSError, ValueError):
            for line in iter(lambda: process.stdout.readline(LINE_LIMIT), b""):
                self._heard = time.monotonic()
                self._greeted = self._greeted or line == PONG.encode() or line.startswith(mark)
                if line.startswith(mark):
                    self._answers.put(line[len(mark) :])
                elif line != PONG.encode():
                    self._note(line)
        self._answers.put(None)

    def _read_errors(self, process: RemoteProcess) -> None:
        with contextlib.suppress(OSError, ValueError):
            for line in iter(lambda: process.stderr.readline(LINE_LIMIT), b""):
                self._note(line)

    def _note(self, line: bytes) -> None:
        """Keep what a login shell prints, or why there is no Python."""
        self._noise.append(line)
        del self._noise[:-20]

    def _keep_alive(self) -> None:
        while not self._closed.wait(min(PING_SECONDS, self._lifeline / 4)):
            self._write(PING)

    def _write(self, data: bytes) -> None:
        with contextlib.suppress(OSError, ValueError), self._writing:  # its end is seen by who reads
            assert self._process is not None
            self._process.stdin.write(data)
            self._process.stdin.flush()
