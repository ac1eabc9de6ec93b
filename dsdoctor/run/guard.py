"""The head's end of a guardian: start it over a transport, hand it its order, take its frames, keep the line alive."""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from importlib import resources
from typing import Any

from dsdoctor.hosts.gather import with_setup
from dsdoctor.hosts.transport import RemoteProcess, Transport, TransportError
from dsdoctor.plan.model import Command, HostPlan, LaunchPlan
from dsdoctor.run.guardian import MARKER

BOOT = 'import sys;b=sys.stdin.buffer;exec(compile(b.read(int(b.readline())),"guardian","exec"))'
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
        self._write_lock = threading.Lock()

    def start(self, order: Mapping[str, Any]) -> None:
        """Start the guardian with its order. A host that cannot be reached is reported as a frame, like any failure."""
        self.heard = time.monotonic()
        threading.Thread(target=self._carry, args=(order,), daemon=True).start()

    def _carry(self, order: Mapping[str, Any]) -> None:
        try:
            self.process = self.transport.start([self.host.python, "-u", "-c", BOOT])
        except TransportError as error:
            self.ended = True
            self.sink(self.host.name, {"e": "lost", "text": error.detail or error.problem})
            return
        source = resources.files("dsdoctor.run").joinpath("guardian.py").read_bytes()
        errors = threading.Thread(target=self._read_errors, args=(self.process,), daemon=True)
        errors.start()
        self._write(b"%d\n%s%s\n" % (len(source), source, json.dumps(order).encode("ascii")))
        with contextlib.suppress(OSError, ValueError):  # closed meanwhile
            self._read_frames(self.process)
        errors.join(timeout=2)
        self.ended = True
        text = "\n".join(self._noise[-5:]) or "the connection ended"
        self.sink(self.host.name, {"e": "closed", "text": text})

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
        """Tell the guardian to end everything."""
        self._write(b'{"c":"stop"}\n')

    def close(self) -> None:
        """Drop the line: a guardian that still lives ends its processes when it sees that."""
        process = self.process
        if process is None:
            return
        with contextlib.suppress(OSError, ValueError):
            process.stdin.close()
        try:
            process.wait(timeout=2)
        except (OSError, subprocess.TimeoutExpired):
            # It may sit on a line that is dead: nobody waits for that.
            threading.Thread(target=process.close, daemon=True).start()
        else:
            process.close()

    def _write(self, data: bytes) -> None:
        process = self.process
        if process is None:
            return
        with contextlib.suppress(OSError, ValueError), self._write_lock:
            process.stdin.write(data)
            process.stdin.flush()


def order_for(
    plan: LaunchPlan, command: Command, secrets: Mapping[str, str], lifeline_seconds: float, grace_seconds: float
) -> dict[str, Any]:
    """What a guardian is told: command, environment (with the secrets: this goes over the wire only), limits."""
    host = plan.host(command.host)
    env = {**host.env, **command.env}
    return {
        "argv": with_setup(command.argv, plan.setup),
        "cwd": command.cwd,
        "env": {name: secrets[name] if var.secret else var.value for name, var in env.items()},
        "first_rank": host.first_rank,
        "make": [f"{host.run_dir}/outputs", f"{host.run_dir}/torchrun"],
        "lifeline_seconds": lifeline_seconds,
        "grace_seconds": grace_seconds,
    }
