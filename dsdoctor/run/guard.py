"""The head's end of a guardian: start it over a transport, hand it its order, take its frames, keep the line alive."""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dsdoctor.hosts.gather import BOOT, with_setup
from dsdoctor.hosts.transport import RemoteProcess, Transport, TransportError
from dsdoctor.plan.model import HostPlan, LaunchPlan, StagePlan, names_unset, values_sent
from dsdoctor.run.guardian import MARKER
from dsdoctor.run.sent import sent_source

FRAME_LIMIT = 1024 * 1024

Frame = dict[str, Any]


class Guard:
    """One host's guardian during one stage. Frames go to `sink(host, frame)` from a thread of their own."""

    def __init__(self, host: HostPlan, transport: Transport, sink: Callable[[str, Frame], None]) -> None:
        self.host = host
        self.transport = transport
        self.sink = sink
        self.process: RemoteProcess | None = None
        self.heard = time.monotonic()
        self.greeted = False
        self.ended = False
        self._noise: list[str] = []
        self._over = False  # told to stop, or hung up: nothing may be started any more
        self._write_lock = threading.Lock()

    def start(self, order: Mapping[str, Any], setup: Sequence[str] = ()) -> None:
        """Start the guardian with its order. A host that cannot be reached is reported as a frame, like any failure."""
        self.heard = time.monotonic()
        threading.Thread(target=self._carry, args=(order, setup), daemon=True).start()

    def _carry(self, order: Mapping[str, Any], setup: Sequence[str]) -> None:
        try:
            # Behind the setup lines: the interpreter may need them, and the plan's variables come after theirs.
            process = self.transport.start(with_setup([self.host.python, "-u", "-c", BOOT], setup))
        except (TransportError, OSError) as error:
            self.ended = True
            self.sink(self.host.name, {"e": "lost", "text": getattr(error, "detail", "") or str(error)})
            return
        if not self._hand_over(process, order):
            process.close()
            self.ended = True
            self.sink(self.host.name, {"e": "exit", "code": -15, "stopped": "told to before it began"})
            return
        errors = threading.Thread(target=self._read_errors, args=(process,), daemon=True)
        errors.start()
        with contextlib.suppress(OSError, ValueError):  # closed meanwhile
            self._read_frames(process)
        errors.join(timeout=2)
        self.ended = True
        text = "\n".join(line for line in self._noise[-5:] if line) or "the connection ended"
        self.sink(self.host.name, {"e": "closed", "text": text})

    def _hand_over(self, process: RemoteProcess, order: Mapping[str, Any]) -> bool:
        """Write the guardian's source and order, before anything else can be written; False when it is too late."""
        source = sent_source()
        with self._write_lock:
            if self._over:
                return False
            with contextlib.suppress(OSError, ValueError):  # its end is seen by who reads
                process.stdin.write(b"%d\n%s%s\n" % (len(source), source, json.dumps(order).encode("ascii")))
                process.stdin.flush()
            self.process = process
        return True

    def _read_frames(self, process: RemoteProcess) -> None:
        for raw in iter(lambda: process.stdout.readline(FRAME_LIMIT), b""):
            text = raw.decode("utf-8", "replace").rstrip("\r\n")
            if not self.greeted:
                self.greeted = text == MARKER
                if not self.greeted:
                    self._noise.append(text)  # what a login shell prints, or why there is no Python
                continue
            self.heard = time.monotonic()
            try:
                frame = json.loads(text)
            except ValueError:
                continue
            if isinstance(frame, dict):
                self.sink(self.host.name, frame)

    def _read_errors(self, process: RemoteProcess) -> None:
        with contextlib.suppress(OSError, ValueError):
            for raw in iter(lambda: process.stderr.readline(FRAME_LIMIT), b""):
                self._noise.append(raw.decode("utf-8", "replace").rstrip("\r\n"))
                del self._noise[:-50]

    def ping(self) -> None:
        """Tell the guardian that the head is alive."""
        self._write(b'{"c":"ping"}\n')

    def stop(self) -> None:
        """Tell the guardian to end everything; one that has not begun yet does not begin."""
        self._over = True
        self._write(b'{"c":"stop"}\n')

    def hang_up(self) -> None:
        """Close the line: a guardian that still lives ends its processes when it sees that."""
        self._over = True
        if self.process is not None:
            with contextlib.suppress(OSError, ValueError):
                self.process.stdin.close()

    def close(self, timeout: float) -> None:
        """Wait for the end of a line that was hung up, and drop it."""
        process = self.process
        if process is None:
            return
        try:
            process.wait(timeout=timeout)
        except (OSError, subprocess.TimeoutExpired):
            # It may sit on a line that is dead: nobody waits for that.
            threading.Thread(target=process.close, daemon=True).start()
        else:
            process.close()

    def _write(self, data: bytes) -> None:
        with contextlib.suppress(OSError, ValueError), self._write_lock:
            if self.process is not None:
                self.process.stdin.write(data)
                self.process.stdin.flush()


def order_for(plan: LaunchPlan, stage: StagePlan, host: str, lifeline: float, grace: float) -> dict[str, Any]:
    """What a guardian is told: command, environment (with the secrets: this goes over the wire only), limits in s."""
    command, place = stage.command(host), plan.host(host)
    return {
        "argv": list(command.argv),
        "cwd": command.cwd,
        "env": values_sent(place.env, command.env),
        "unset": list(names_unset(place.env, command.env)),
        "first_rank": place.first_rank,
        "make": [f"{place.run_dir}/outputs/{stage.folder}", f"{place.run_dir}/torchrun"],
        "lifeline_seconds": lifeline,
        "grace_seconds": grace,
    }
