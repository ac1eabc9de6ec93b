"""Looking at all ranks of a run on all hosts at once, and keeping what was seen in the run's directory."""

from __future__ import annotations

import base64
import binascii
import queue
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dsdoctor.hosts.transport import Transport
from dsdoctor.logs.stacks import Look, looks_of
from dsdoctor.plan.model import LaunchPlan
from dsdoctor.run.on_host import ask
from dsdoctor.run.ranks_on_host import look_at_ranks

BETWEEN = 2.0  # seconds between the two looks at a rank
TIMEOUT = 60.0  # seconds for a host's answer
RECORDER_ROOM = 8 << 20  # bytes of a rank's flight recorder that are fetched


@dataclass
class Seen:
    """What was seen of the ranks."""

    began: float  # time.monotonic()
    looks: list[Look] = field(default_factory=list)
    texts: list[tuple[Look, str]] = field(default_factory=list)
    recorders: list[tuple[Look, str, bytes]] = field(default_factory=list)  # rank, file name on the host, content
    hidden: dict[str, str] = field(default_factory=dict)  # hosts that could not be looked at, and why

    def take(self, name: str, answer: Any) -> None:
        """Take a host's answer (`look_at_ranks`)."""
        self.texts += looks_of(name, answer)
        self.looks = [look for look, _ in self.texts]
        by_pid = {look.pid: look for look in self.looks if look.host == name}
        entries = answer.get("ranks") if isinstance(answer, dict) else None
        for entry in entries if isinstance(entries, list) else []:
            recorder = entry.get("recorder") if isinstance(entry, dict) else None
            for path, content in recorder.items() if isinstance(recorder, dict) else ():
                look = by_pid.get(entry.get("pid"))
                if look is not None and isinstance(content, str):
                    try:
                        data = base64.b64decode(content, validate=True)
                    except binascii.Error:
                        continue
                    self.recorders.append((look, str(path), data))


class Looking:
    """A look at every rank, made by threads of its own: a host that answers slowly holds up nobody."""

    def __init__(
        self,
        plan: LaunchPlan,
        transports: Mapping[str, Transport],
        roots: Mapping[str, int],
        spools: Mapping[str, str],
    ) -> None:
        self._seen = Seen(time.monotonic())
        self._answers: queue.Queue[tuple[str, Any]] = queue.Queue()
        self._waiting = {host.name for host in plan.hosts}
        self._until = self._seen.began + TIMEOUT + 15
        for host in plan.hosts:
            order = {"root": roots.get(host.name), "spool": spools.get(host.name), "seconds": BETWEEN}
            order |= {"recorder": True, "room": RECORDER_ROOM}
            arguments = (host.name, host.python, transports[host.name], order, plan.setup)
            threading.Thread(target=self._ask, args=arguments, daemon=True).start()

    def _ask(self, name: str, python: str, transport: Transport, order: dict[str, Any], setup: tuple[str, ...]) -> None:
        try:
            answer = ask(transport, python, look_at_ranks, order, setup, timeout=TIMEOUT)
        except Exception as error:  # also what a transport raises when the stage ends and it is closed meanwhile
            answer = error
        self._answers.put((name, answer))

    def result(self) -> Seen | None:
        """What was seen, once every host has answered or its time is over; None until then. Never waits."""
        while True:
            try:
                name, answer = self._answers.get_nowait()
            except queue.Empty:
                break
            self._waiting.discard(name)
            if isinstance(answer, Exception):
                self._seen.hidden[name] = str(answer)
            else:
                self._seen.take(name, answer)
        if self._waiting and time.monotonic() < self._until:
            return None
        self._seen.hidden.update(dict.fromkeys(self._waiting, "no answer"))
        return self._seen


def missing_ranks(plan: LaunchPlan, seen: Seen) -> list[str]:
    """Ranks of hosts that answered of which no process was seen; empty where a host shows none at all."""
    missing = []
    for host in plan.hosts:
        there = {look.rank for look in seen.looks if look.host == host.name}
        if there:
            wanted = range(host.first_rank, host.first_rank + host.slots)
            missing += [f"rank {rank} on {host.name} has no process" for rank in wanted if rank not in there]
    return missing


def keep(seen: Seen, folder: Path, traces: Mapping[tuple[str, int | None], list[str]]) -> None:
    """Write a file a rank into a folder, with what its own faulthandler printed (`traces`). Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    for look, text in seen.texts:
        told = traces.get((look.host, look.rank))
        more = "\nsaid by its faulthandler:\n" + "\n".join(told) + "\n" if told else ""
        path = folder / f"{_plain(look.host)}-rank{look.rank}-{look.pid}.txt"
        path.write_text(text + more, encoding="utf-8", errors="backslashreplace")
    for look, name, data in seen.recorders:
        base = _plain(name.rsplit("/", 1)[-1])
        (folder / f"{_plain(look.host)}-rank{look.rank}-{look.pid}-{base}").write_bytes(data)


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "_", name)[:100]
