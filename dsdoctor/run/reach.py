"""Asking the hosts of a run about its guardians, ending those, taking away their spools: with no head between."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import msgspec

from dsdoctor.hosts.gather import with_setup
from dsdoctor.hosts.sent import BOOT, framed
from dsdoctor.hosts.transport import Transport, TransportError
from dsdoctor.plan.model import HostPlan
from dsdoctor.run.guard import guards_of, spool_name
from dsdoctor.run.guardian import MARKER
from dsdoctor.run.kept import Kept
from dsdoctor.run.sent import sent_source

PARALLEL = 32


class GuardianSeen(msgspec.Struct, frozen=True):
    """A guardian as its host tells of it. `attempt` is `1-first.2`: stage folder and number; times in seconds."""

    attempt: str
    alive: bool
    stopped: bool = False  # by a signal (SIGSTOP): it does not work
    pid: int | None = None
    seconds: float = 0.0  # since it began
    quiet: float = -1.0  # since the last line, -1: none yet
    end: dict[str, Any] | None = None  # its last frame
    stall: dict[str, Any] | None = None  # that its ranks stand still, found while no head followed


@dataclass(frozen=True)
class HostSeen:
    """What a host told; `problem` is why it could not be asked."""

    host: str
    guardians: tuple[GuardianSeen, ...] = ()
    problem: str | None = None
    left_behind: int = 0  # processes of the run that no guardian owns any more

    @property
    def alive(self) -> GuardianSeen | None:
        """The guardian that lives."""
        return next((each for each in self.guardians if each.alive), None)


@dataclass(frozen=True)
class HostStopped:
    """What was stopped on a host: the attempts that ran there, and those that did not end."""

    host: str
    ended: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    problem: str | None = None


def look(kept: Kept, transports: Mapping[str, Transport], timeout: float = 30.0) -> list[HostSeen]:
    """Ask every host of a run about its guardians, all at once."""

    def ask(host: HostPlan) -> HostSeen:
        try:
            lines = _asked(kept, host, transports[host.name], {"do": "look"}, timeout)
            seen = tuple(msgspec.convert(line, GuardianSeen) for line in lines if "attempt" in line)
            left = sum(int(line.get("left_behind", 0)) for line in lines)
            return HostSeen(host.name, seen, left_behind=left)
        except (TransportError, OSError, subprocess.TimeoutExpired, ValueError) as error:
            return HostSeen(host.name, problem=_words(error))

    with ThreadPoolExecutor(max_workers=min(PARALLEL, len(kept.plan.hosts))) as pool:
        return list(pool.map(ask, kept.plan.hosts))


def stop(
    kept: Kept,
    transports: Mapping[str, Transport],
    *,
    hosts: Collection[str] | None = None,
    attempt: str | None = None,
    timeout: float = 60.0,
) -> list[HostStopped]:
    """End every guardian of a run on all hosts (or on these), all at once, and wait until they are gone.

    With `attempt` (`1-first.2`) that one alone: a later one may run by now.
    """
    places = [host for host in kept.plan.hosts if hosts is None or host.name in hosts]

    def end(host: HostPlan) -> HostStopped:
        order = {"do": "stop", "grace_seconds": kept.limits.grace, "attempt": attempt}
        try:
            lines = _asked(kept, host, transports[host.name], order, timeout)
        except (TransportError, OSError, subprocess.TimeoutExpired, ValueError) as error:
            return HostStopped(host.name, problem=_words(error))
        told = [(_attempt(line), bool(line.get("gone"))) for line in lines]
        ended = tuple(what for what, gone in told if what and gone)
        left = tuple(what for what, gone in told if what and not gone)
        return HostStopped(host.name, ended, left)

    with ThreadPoolExecutor(max_workers=max(1, min(PARALLEL, len(places)))) as pool:
        return list(pool.map(end, places))


@dataclass(frozen=True)
class HostCleared:
    """How many spools of a run were taken away on a host, and how many are left there."""

    host: str
    removed: int = 0
    left: int = 0
    problem: str | None = None


def clear(
    kept: Kept,
    transports: Mapping[str, Transport],
    attempts: Mapping[str, Collection[str]] | None = None,
    timeout: float = 30.0,
) -> list[HostCleared]:
    """Take the spools of a run away on all hosts, all at once; with `attempts` those of these, by host.

    What a guardian writes that lives stays, and so does every file that no guardian has made.
    """
    places = [host for host in kept.plan.hosts if attempts is None or attempts.get(host.name)]

    def take_away(host: HostPlan) -> HostCleared:
        order = {"do": "clear", "attempts": None if attempts is None else sorted(attempts[host.name])}
        try:
            (line,) = _asked(kept, host, transports[host.name], order, timeout)
            return HostCleared(host.name, int(line["removed"]), int(line["left"]))
        except (TransportError, OSError, subprocess.TimeoutExpired, ValueError, KeyError) as error:
            return HostCleared(host.name, problem=_words(error))

    with ThreadPoolExecutor(max_workers=max(1, min(PARALLEL, len(places)))) as pool:
        return list(pool.map(take_away, places))


def _attempt(line: Mapping[str, Any]) -> str:
    """What a line of an answer to `stop` is about; empty for nothing."""
    count = int(line.get("left_behind", 0))
    if "attempt" in line or not count:
        return str(line.get("attempt", ""))
    return "1 process that was left behind" if count == 1 else f"{count} processes that were left behind"


def stop_when_reached(
    kept: Kept,
    connect: Callable[[], dict[str, Transport]],
    hosts: Collection[str],
    attempt: str,
    *,
    seconds: float = 6 * 3600.0,
    pause: float = 10.0,
) -> Iterator[HostStopped]:
    """End an attempt on hosts that were lost, each as soon as it can be reached again; gives those that were.

    Args:
        kept: the run.
        connect: makes transports; lines from before are dead.
        hosts: the lost ones.
        attempt: whose guardians are ended.
        seconds: after which hosts that have not come back are given up.
        pause: seconds between two tries.
    """
    left, until = set(hosts), time.monotonic() + seconds
    while left and time.monotonic() < until:
        transports = connect()
        try:
            answers = stop(kept, transports, hosts=left, attempt=attempt)
        finally:
            for transport in transports.values():
                transport.close()
        for answer in answers:
            if answer.problem is None and not answer.left:
                left.discard(answer.host)
                yield answer
        if left:
            time.sleep(pause)


def _asked(
    kept: Kept, host: HostPlan, transport: Transport, order: dict[str, Any], timeout: float
) -> list[dict[str, Any]]:
    """Send an order and take the lines that it is answered with. Raises ValueError for what is no answer."""
    whole = {**order, "guards": guards_of(host), "host": spool_name(host)}
    argv = with_setup([host.python, "-u", "-c", BOOT], kept.plan.setup)
    source = framed(sent_source()) + json.dumps(whole).encode("ascii") + b"\n"
    done = transport.run(argv, stdin=source, timeout=timeout)
    text = done.stdout.decode("utf-8", "replace").replace("\r\n", "\n")
    before, mark, after = text.partition(f"\n{MARKER}\n")
    if not mark or done.returncode != 0:
        said = (done.stderr.decode("utf-8", "replace").strip() or before.strip()).splitlines()
        raise ValueError(said[-1] if said else f"{host.python} ended with exit code {done.returncode}")
    return [json.loads(line) for line in after.splitlines() if line]


def _words(error: Exception) -> str:
    if isinstance(error, TransportError):
        return error.detail or error.problem
    if isinstance(error, subprocess.TimeoutExpired):
        return f"no answer within {error.timeout:.0f} s"
    return str(error)
