"""`--network`: the hosts try the ways between them, all at once; each host's answer becomes its `peers` section."""

from __future__ import annotations

import contextlib
import json
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from typing import Any

import msgspec

from dsdoctor.addresses import job_address, network_of
from dsdoctor.cluster import Cluster, Member
from dsdoctor.facts import HostFacts, Section
from dsdoctor.hosts.gather import with_setup
from dsdoctor.hosts.sent import BOOT
from dsdoctor.hosts.transport import RemoteProcess, Transport, TransportError

MOMENT = 0.2  # seconds of sending at full speed, each way, for each pair
READY = 15.0  # seconds until a host must have begun
LONGEST = 40.0  # seconds of the trial itself; pairs that do not come to their turn are not measured
FIRST_PORT = 29500

_MARK = b"<<<dsdoctor-network "
_LINE = 16 << 20  # bytes of an answer, at most

Progress = Callable[[str], None]


def try_network(
    cluster: Cluster,
    transports: Mapping[str, Transport],
    *,
    python: str | None = None,
    setup: Sequence[str] = (),
    progress: Progress = lambda text: None,
) -> Cluster:
    """The cluster with a `peers` section in the facts of every host that was examined.

    Takes at most READY + LONGEST and a few seconds. A host that takes no part (no way to start a program, no address)
    has a section with the reason, and the others say of it that it was not ready.
    """
    parts = {
        member.name: _Part(member, address, transports[member.name])
        for member in cluster.examined
        if (address := job_address(member, cluster)) is not None and member.name in transports
    }
    if len(parts) >= 2:
        _carry_out(list(parts.values()), _orders(cluster, parts), python, setup, progress)
    return replace(cluster, members=tuple(_with_answer(member, parts) for member in cluster))


@dataclass
class _Part:
    """One host's part in the trial."""

    member: Member
    address: str
    transport: Transport
    process: RemoteProcess | None = None
    ports: dict[str, Any] | None = None
    answer: dict[str, Any] | None = None
    said: list[str] = field(default_factory=list)
    ready: threading.Event = field(default_factory=threading.Event)
    done: threading.Event = field(default_factory=threading.Event)

    def section(self) -> Section:
        if self.answer is None:
            return Section(error=f"the network trial did not end: {'; '.join(self.said[-3:]) or 'no answer'}")
        if "error" in self.answer:
            return Section(error=f"the network trial could not begin: {self.answer['error']}")
        seconds = float(self.answer.get("seconds", 0.0))
        value = {"address": self.address, "problems": (self.ports or {}).get("problems", [])}
        return Section(value={**value, "peers": self.answer["results"]}, seconds=round(seconds, 3))

    def run(self, source: bytes, order: Mapping[str, Any], argv: Sequence[str]) -> None:
        """Start the program and take what it says, until its end."""
        try:
            self.process = self.transport.start(argv)
            errors = threading.Thread(target=self._errors, args=(self.process,), daemon=True)
            errors.start()
            with contextlib.suppress(OSError, ValueError):  # why it ended is what it says
                self.process.stdin.write(b"%d\n%s%s\n" % (len(source), source, json.dumps(order).encode("ascii")))
                self.process.stdin.flush()
            output = self.process.stdout
            for raw in iter(lambda: output.readline(_LINE), b""):
                self._hear(raw)
            errors.join(timeout=2)
        except (TransportError, OSError, ValueError) as error:
            self.said.append(getattr(error, "detail", "") or str(error))
        finally:
            self.ready.set()
            self.done.set()

    def _hear(self, raw: bytes) -> None:
        if not raw.startswith(_MARK):
            return
        with contextlib.suppress(ValueError):
            value = json.loads(raw[len(_MARK) :])
            if self.ports is None and "ports" in value:
                self.ports = value
                self.ready.set()
            else:
                self.answer = value

    def _errors(self, process: RemoteProcess) -> None:
        with contextlib.suppress(OSError, ValueError):
            for raw in iter(lambda: process.stderr.readline(4096), b""):
                self.said.append(raw.decode("utf-8", "replace").strip())
                del self.said[:-5]

    def tell(self, ports: Mapping[str, Any]) -> None:
        if self.process is not None:
            with contextlib.suppress(OSError, ValueError):
                self.process.stdin.write(json.dumps(ports).encode("ascii") + b"\n")
                self.process.stdin.flush()

    def close(self) -> None:
        if self.process is not None:
            with contextlib.suppress(OSError, ValueError):
                self.process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=1)
            # In a thread: it waits for who still reads, and a host that hangs is not waited for.
            threading.Thread(target=self.process.close, daemon=True).start()


def _carry_out(
    parts: list[_Part], orders: Mapping[str, dict[str, Any]], python: str | None, setup: Sequence[str], say: Progress
) -> None:
    source = resources.files("dsdoctor.hosts").joinpath("network_trial.py").read_bytes()
    for part in parts:
        entry = part.member.entry
        own = entry.python or python or (sys.executable if entry.local else "python3")
        argv = with_setup([own, "-u", "-c", BOOT], setup)
        threading.Thread(target=part.run, args=(source, orders[part.member.name], argv), daemon=True).start()
    try:
        _wait([part.ready for part in parts], READY, lambda count: say(f"network trial: {count} hosts are ready"))
        ports = {
            part.member.name: {**part.ports["ports"], "busy": bool(part.ports["problems"])}
            for part in parts
            if part.ports is not None
        }
        for part in parts:
            part.tell(ports)
        limit = orders[parts[0].member.name]["seconds"] + 5
        _wait(
            [part.done for part in parts if part.ports is not None],
            limit,
            lambda count: say(f"network trial: {count} hosts are done"),
        )
    finally:
        for part in parts:
            part.close()


def _wait(events: Sequence[threading.Event], seconds: float, say: Callable[[str], None]) -> None:
    """Wait until all have happened, or so long."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        waiting = [event for event in events if not event.is_set()]
        if not waiting:
            return
        say(f"{len(events) - len(waiting)} of {len(events)}")
        waiting[0].wait(min(0.5, max(0.0, end - time.monotonic())))


def _orders(cluster: Cluster, parts: Mapping[str, _Part]) -> dict[str, dict[str, Any]]:
    """What each host is told."""
    master = cluster.master.name if cluster.master.name in parts else ""
    rounds = len(parts) - 1 + len(parts) % 2
    shared = {
        "order": list(parts),
        "addresses": {name: part.address for name, part in parts.items()},
        "master": master,
        "master_port": _master_port(parts[master].member) if master else 0,
        "token": secrets.token_hex(16),
        "seconds": READY + min(LONGEST, 12 + rounds * (2 * MOMENT + 0.2)),
        "moment": MOMENT,
    }
    return {name: {**shared, "me": name} for name in parts}


def _master_port(master: Member) -> int:
    """The port at which a launch would let the ranks meet: the first free one from 29500 on."""
    network = network_of(master)
    taken = set(network.listening) if network else set()
    return next(port for port in range(FIRST_PORT, 65536) if port not in taken)


def _with_answer(member: Member, parts: Mapping[str, _Part]) -> Member:
    if member.facts is None:
        return member
    if member.name not in parts:
        section = Section(error="its address for the job is not known, so it took no part in the network trial")
    elif len(parts) < 2:
        section = Section(error="there is no other host to try the network with")
    else:
        section = parts[member.name].section()
    sections = {**member.facts.snapshot.sections, "peers": section}
    return replace(member, facts=HostFacts(msgspec.structs.replace(member.facts.snapshot, sections=sections)))
