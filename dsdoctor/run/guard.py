"""The head's end of a guardian: start it over a transport, hand it its order, take its frames, keep the line alive."""

from __future__ import annotations

import contextlib
import json
import posixpath
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dsdoctor.hosts.gather import with_setup
from dsdoctor.hosts.sent import BOOT, framed
from dsdoctor.hosts.transport import RemoteProcess, Transport, TransportError
from dsdoctor.plan.model import HostPlan, LaunchPlan, StagePlan, names_unset, values_sent
from dsdoctor.plan.own import DUMPS, PIPE
from dsdoctor.run.guardian import MARKER
from dsdoctor.run.sent import sent_source
from dsdoctor.run.stage_end import Watching

FRAME_LIMIT = 1024 * 1024
LAST = frozenset({"exit", "error", "gone"})  # after one of these a guardian says nothing more
PEER_PORTS = range(20000, 29400)  # below the kernel's own (32768) and where ranks meet (29500)
AGAIN_SECONDS = 1.0  # how often a lost line to a detached guardian is drawn anew

Frame = dict[str, Any]


class Guard:
    """One host's guardian during one stage. Frames go to `sink(host, frame)` from a thread of their own.

    A frame that the guardian's spool has carries `next`: the offset to go on from, once it has been taken. `happened`
    is when the guardian made it, by this process's time.monotonic().
    """

    def __init__(self, host: HostPlan, transport: Transport, sink: Callable[[str, Frame], None]) -> None:
        self.host = host
        self.transport = transport
        self.sink = sink
        self.process: RemoteProcess | None = None
        self.heard = time.monotonic()
        self.greeted = False
        self.ended = False
        self._noise: list[str] = []
        self._told = False  # to stop: nothing may be started any more
        self._over = threading.Event()  # hung up
        self._last = False  # the guardian has said its last word
        self._ahead: float | None = None  # our clock's lead over the host's: the least of all beats
        self._next = 0  # of the spool, behind the last frame that came
        self._write_lock = threading.Lock()

    def start(self, order: Mapping[str, Any], setup: Sequence[str] = ()) -> None:
        """Start the guardian with its order, or follow one (`do: follow`).

        A host that cannot be reached is reported as a frame, like any failure. The line to a detached guardian is
        drawn anew when it breaks, until this is hung up.
        """
        self.heard = time.monotonic()
        self._next = order.get("offset", 0)
        threading.Thread(target=self._carry, args=(order, setup), daemon=True).start()

    def _carry(self, order: Mapping[str, Any], setup: Sequence[str]) -> None:
        going_on = bool(order.get("detach")) or order.get("do") == "follow"
        while True:
            lost = self._session(order, setup)
            if lost is not None and order.get("do") != "follow":
                self.ended = True
                self.sink(self.host.name, lost)
                return
            if not going_on or self._last or self._over.wait(AGAIN_SECONDS):
                break
            patience = order.get("patience_seconds") or order["lifeline_seconds"]
            order = follow_order(order["spool"], self._next, patience)
        self.ended = True
        text = "\n".join(line for line in self._noise[-5:] if line) or "the connection ended"
        self.sink(self.host.name, {"e": "closed", "text": text})

    def _session(self, order: Mapping[str, Any], setup: Sequence[str]) -> Frame | None:
        """One line from its beginning to its end; a frame when there was none."""
        try:
            # Behind the setup lines: the interpreter may need them, and the plan's variables come after theirs.
            process = self.transport.start(with_setup([self.host.python, "-u", "-c", BOOT], setup))
        except (TransportError, OSError) as error:
            return {"e": "lost", "text": getattr(error, "detail", "") or str(error)}
        if not self._hand_over(process, order):
            process.close()
            return {"e": "exit", "code": -15, "stopped": "told to before it began"}
        errors = threading.Thread(target=self._read_errors, args=(process,), daemon=True)
        errors.start()
        with contextlib.suppress(OSError, ValueError):  # closed meanwhile
            self._read_frames(process)
        errors.join(timeout=2)
        return None

    def _hand_over(self, process: RemoteProcess, order: Mapping[str, Any]) -> bool:
        """Write the guardian's source and order, before anything else can be written; False when it is too late."""
        with self._write_lock:
            starts = order.get("do") != "follow"
            if self._over.is_set() or (self._told and starts):
                return False
            words = b'{"c":"stop"}\n' if self._told else b""  # asked for while there was no line
            with contextlib.suppress(OSError, ValueError):  # its end is seen by who reads
                process.stdin.write(framed(sent_source()) + json.dumps(order).encode("ascii") + b"\n" + words)
                process.stdin.flush()
            self.process = process
        return True

    def _read_frames(self, process: RemoteProcess) -> None:
        greeted = False
        for raw in iter(lambda: process.stdout.readline(FRAME_LIMIT), b""):
            if not greeted:
                text = raw.decode("utf-8", "replace").rstrip("\r\n")
                greeted = text == MARKER
                self.greeted = self.greeted or greeted
                if not greeted:
                    self._noise.append(text)  # what a login shell prints, or why there is no Python
                continue
            self.heard = time.monotonic()
            try:
                frame = json.loads(raw)
            except ValueError:
                continue
            if isinstance(frame, dict):
                self._date(frame)
                if isinstance(frame.get("at"), int):
                    self._next = frame["next"] = frame["at"] + len(raw)
                self._last = self._last or frame.get("e") in LAST
                self.sink(self.host.name, frame)

    def _date(self, frame: Frame) -> None:
        """Translate the host's clock, of which every beat tells the present state, into this process's."""
        now, made = frame.get("now"), frame.get("m")
        if isinstance(now, int | float):
            ahead = self.heard - now
            self._ahead = ahead if self._ahead is None else min(self._ahead, ahead)
        if isinstance(made, int | float) and self._ahead is not None:
            frame["happened"] = min(self.heard, made + self._ahead)

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
        self._told = True
        self._write(b'{"c":"stop"}\n')

    def fetched(self) -> None:
        """Tell the guardian that every line of its is on the disk here: it may take away what it kept."""
        self._write(b'{"c":"fetched"}\n')

    def hang_up(self) -> None:
        """Close the line: an attached guardian that still lives ends its processes when it sees that."""
        self._over.set()
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


def order_for(
    plan: LaunchPlan,
    stage: StagePlan,
    host: str,
    lifeline: float,
    grace: float,
    attempt: int = 1,
    detach: bool = False,
    key: str = "",
    watching: Watching = Watching(),  # noqa: B008 - a frozen value
    spool_limit: int = 0,
) -> dict[str, Any]:
    """What a guardian is told: command, environment (with the secrets: this goes over the wire only), limits in s.

    `key` is the attempt's, with which the guardians of a detached run know each other.
    """
    command, place = stage.command(host), plan.host(host)
    ranks = range(place.first_rank, place.first_rank + place.slots)
    # The launchers make their folders themselves, and stumble over each other where hosts share the disk.
    folders = [f"{place.run_dir}/outputs/{stage.folder}", f"{place.run_dir}/torchrun"]
    folders += [command.rank_logs] if command.rank_logs else []
    env = values_sent(place.env, command.env)
    folders += [posixpath.dirname(env[name]) for name in DUMPS if env.get(name, "").startswith(f"{place.run_dir}/")]
    meet = {"addr": plan.master_addr, "port": plan.master_port, "here": place.node_rank == 0}
    return {
        "argv": list(command.argv),
        "cwd": command.cwd,
        "env": env,
        "unset": list(names_unset(place.env, command.env)),
        "first_rank": place.first_rank,
        "ranks": [{"rank": part.rank, "env": part.env} for part in command.ranks],
        "rank_logs": {"folder": command.rank_logs, "ranks": list(ranks)} if command.rank_logs else None,
        "meet": meet if command.meets else None,
        "make": folders,
        "pipes": [f"{env[PIPE]}{rank}.pipe" for rank in ranks] if env.get(PIPE) else [],
        "lifeline_seconds": lifeline,
        "grace_seconds": grace,
        "spool": spool_of(place, stage, attempt),
        "spool_limit": spool_limit,
        "detach": detach,
        "watch": _watch(place, watching, stage, attempt) if detach else None,
        "peers": _peers(plan, place, key) if detach and len(plan.hosts) > 1 and key else None,
    }


def _watch(place: HostPlan, watching: Watching, stage: StagePlan, attempt: int) -> dict[str, Any]:
    """How a guardian notices a stall while no head does."""
    return {
        "host": place.name,
        "first": place.node_rank == 0,
        "stall_after": watching.stall_after,
        "stop": watching.stop_on_stall,
        "spool": spool_of(place, stage, attempt),
    }


def _peers(plan: LaunchPlan, place: HostPlan, key: str) -> dict[str, Any]:
    """How a guardian hears of the others: it calls the first host's, at one of a few ports that all work out alike."""
    first = int(key[:8], 16)
    ports = [PEER_PORTS.start + (first + 997 * number) % len(PEER_PORTS) for number in range(8)]
    return {
        "name": place.name,
        "first": place.node_rank == 0,
        "addr": plan.master_addr,
        "ports": ports,
        "key": key,
        "hosts": len(plan.hosts),
    }


def follow_order(spool: str, offset: int, patience: float) -> dict[str, Any]:
    """What a follower is told: whose spool, from where on, and how long a silent head is waited for, in seconds."""
    return {"do": "follow", "spool": spool, "offset": offset, "patience_seconds": patience}


def spool_of(host: HostPlan, stage: StagePlan, attempt: int) -> str:
    """The spool of a stage's guardian on its host; hosts may share the folder of the run."""
    return f"{guards_of(host)}/{stage.folder}.{attempt}/{spool_name(host)}"


def guards_of(host: HostPlan) -> str:
    """The folder of all spools of a run on a host."""
    return f"{host.run_dir}/guard"


def spool_name(host: HostPlan) -> str:
    """What a host's spools are called."""
    return "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in host.name)
