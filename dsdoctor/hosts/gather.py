"""Gathering facts: the probe sent to every host at once, each host on its own, none able to hold up the others."""

from __future__ import annotations

import base64
import json
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

from dsdoctor import __version__
from dsdoctor.cluster import HostEntry, Member, Reach, ReachProblem
from dsdoctor.facts import HostFacts, Snapshot
from dsdoctor.hosts import probe
from dsdoctor.hosts.sent import ANOTHER, BOOT, framed, pack
from dsdoctor.hosts.shown import said
from dsdoctor.hosts.transport import OUTPUT_LIMIT, Completed, Transport, TransportError, TransportKind, connect
from dsdoctor.hosts.transport.quoting import prefaced

# The probe prints its answer between these two lines; login shells print around them.
BEGIN = probe.BEGIN.encode("ascii")
END = probe.END.encode("ascii")
SHELL = b"<<<dsdoctor-shell\n"  # printed when the login shell has come to the command
# Notes that moment for the probe, as /proc/uptime has it: what the login shell did before is what every command costs.
_THROUGH_SHELL = (
    'read DSDOCTOR_SHELL_AT _ 2>/dev/null </proc/uptime; export DSDOCTOR_SHELL_AT; echo "<<<dsdoctor-shell"; '
)
PRINTED = 2000  # characters kept of what a login shell prints
PARALLEL = 32
MANY = 8  # hosts over ssh from which on the quick way to them pays (importing paramiko takes 0.2 s)
ARGUMENT_LIMIT = 120_000  # Linux takes at most 128 KiB for one argument
# The interpreters at the other end of a kept connection that have turned out to be of this one's version.
_OURS: weakref.WeakKeyDictionary[Transport, set[str]] = weakref.WeakKeyDictionary()


def probe_pack(source: bool = True) -> bytes:
    """The probe as it is sent to the hosts, for BOOT; without its source for those known to have this Python."""
    return pack(probe.__name__, entry=("answer", "main"), needs="the probe", refusal=probe.REFUSAL, source=source)


def with_setup(argv: Sequence[str], setup: Sequence[str]) -> list[str]:
    """The command behind the job's setup lines (scl enable, module load), in one bash; the lines see no input.

    A line that fails ends it, as it would end the job, and is named on standard error.
    """
    if not setup:
        return list(argv)
    trap = "trap 'echo \"setup line failed: $BASH_COMMAND\" >&2' ERR"
    script = "\n".join(["exec 3<&0 </dev/null", "set -e", trap, *setup, "trap - ERR", 'exec "$@" <&3 3<&-'])
    return ["bash", "-c", script, "dsdoctor", *argv]


@dataclass
class _Lines:
    """The transports in use, so that an interruption can end them all."""

    connect: Callable[[HostEntry], Transport]
    kept: dict[str, Transport] | None
    open: list[Transport] = field(default_factory=list)
    stopping: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, entry: HostEntry) -> Transport:
        with self.lock:
            if self.stopping:
                raise TransportError(entry.name, "closed", "interrupted")
            transport = (self.kept or {}).get(entry.name) or self.connect(entry)
            self.open.append(transport)
            return transport

    def give_back(self, transport: Transport, reached: bool) -> None:
        with self.lock:
            self.open.remove(transport)
            if self.kept is not None and reached and not self.stopping:
                self.kept[transport.host.name] = transport
                return
            if self.kept is not None:
                self.kept.pop(transport.host.name, None)
        transport.close()

    def stop(self) -> None:
        with self.lock:
            self.stopping = True
            under_way = list(self.open)
        for transport in under_way:
            transport.close()


def gather(
    entries: Sequence[HostEntry],
    *,
    config: Mapping[str, Any],
    own: Mapping[str, Mapping[str, Any]] | None = None,
    source: bytes | None = None,
    packed_program: bytes | None = None,
    python: str | None = None,
    setup: Sequence[str] = (),
    timeout: float = 60.0,
    connect_timeout: float = 10.0,
    kind: TransportKind = "auto",
    config_file: str | Path | None = None,
    transports: dict[str, Transport] | None = None,
    on_progress: Callable[[Member], None] | None = None,
) -> tuple[Member, ...]:
    """Examine hosts in parallel; returns them in the order given, each with its facts or why there are none.

    A host takes at most `connect_timeout` + 5 + `timeout` seconds, whatever it does. `python` is the job's interpreter;
    the host's own `python=` outranks it, without either this machine's hosts use dsdoctor's and others `python3`.
    `config` is the probe's, with what `own` has for a host's name laid over it. With `transports`, connections found
    there are used, and those of hosts that were reached stay open in it for the caller to close. `on_progress` is
    called in the caller's thread. In the probe's place goes `source`, a program of one file, or `packed_program`, one
    that :func:`dsdoctor.hosts.sent.pack` has made.
    """
    program = packed_program or (None if source is None else framed(source))
    if program is None:
        probe_pack()  # once, before all the threads want it
    limit = min(float(config.get("timeout", timeout)), max(1.0, float(timeout) - 2))
    packed = [_packed({**config, **(own or {}).get(entry.name, {}), "timeout": limit}) for entry in entries]
    many = sum(not entry.local for entry in entries) >= MANY
    lines = _Lines(
        lambda entry: connect(entry, kind, timeout=connect_timeout, config_file=config_file, one_of_many=many),
        transports,
    )

    def examine(entry: HostEntry, question: str) -> Member:
        argv = [entry.python or python or (sys.executable if entry.local else "python3"), "-u", "-c", BOOT, question]
        asked = _Asked("\0".join([argv[0], *setup]), program)
        argv = with_setup(argv, setup)
        member = _examine(entry, lines, argv if entry.local else prefaced(_THROUGH_SHELL, argv), asked, timeout)
        if member.facts is None or not setup:
            return member
        return replace(member, facts=HostFacts(_with_session(member.facts.snapshot, setup=list(setup))))

    members: dict[int, Member] = {}
    with ThreadPoolExecutor(max_workers=max(1, min(PARALLEL, len(entries)))) as pool:
        try:
            futures = {pool.submit(examine, entry, packed[number]): number for number, entry in enumerate(entries)}
            for future in as_completed(futures):
                members[futures[future]] = future.result()
                if on_progress is not None:
                    on_progress(future.result())
        except BaseException:  # Ctrl-C, too: no ssh client may outlive this
            lines.stop()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return tuple(members[number] for number in sorted(members))


def _packed(config: Mapping[str, Any]) -> str:
    """The probe's config as its argument. Raises ValueError when it is too long for one."""
    packed = base64.b64encode(json.dumps(config).encode()).decode()
    if len(packed) > ARGUMENT_LIMIT:
        raise ValueError(f"the probe's config is {len(packed)} characters long, at most {ARGUMENT_LIMIT} can be sent")
    return packed


@dataclass(frozen=True)
class _Asked:
    """What a host is sent: a program, or the probe in the shorter form where its Python is known."""

    python: str  # with the job's setup
    program: bytes | None

    def run(self, transport: Transport, argv: list[str], timeout: float) -> tuple[Completed, float]:
        """The answer, and when it was asked for."""
        begun = time.time()
        if self.program is None and self.python in _OURS.get(transport, ()):
            done = transport.run(argv, stdin=probe_pack(source=False), timeout=timeout)
            if ANOTHER.encode("ascii") not in done.stdout:
                return done, begun
            _OURS.pop(transport, None)
            timeout, begun = max(1.0, timeout - (time.time() - begun)), time.time()
        return transport.run(argv, stdin=self.program or probe_pack(), timeout=timeout), begun

    def learn(self, transport: Transport, snapshot: Snapshot) -> None:
        """Remember whether the host's Python is this one. What is wrong about that is found out when it is used."""
        section = snapshot.sections.get("python")
        told = section.value if section is not None and isinstance(section.value, dict) else {}
        kind, version = str(told.get("implementation")).lower(), str(told.get("version")).split(".")[:2]
        if (kind, version) == (sys.implementation.name, [str(part) for part in sys.version_info[:2]]):
            _OURS.setdefault(transport, set()).add(self.python)


def _examine(entry: HostEntry, lines: _Lines, argv: list[str], sent: _Asked, timeout: float) -> Member:
    """One host, examined or not."""
    begun = time.monotonic()

    def failed(problem: ReachProblem, detail: str) -> Member:
        return Member(entry, Reach(False, problem, detail, time.monotonic() - begun))

    transport: Transport | None = None
    reached = False
    try:
        transport = lines.take(entry)
        done, asked = sent.run(transport, argv, timeout)
        answered = time.time()
        reached = True
    except TransportError as error:
        return failed(error.problem, error.detail)
    except subprocess.TimeoutExpired as expired:
        words = said((expired.stderr or b"") + b"\n" + b"".join(_parted(expired.stdout or b"")))
        return failed("probe-failed", f"no answer within {timeout:g} s" + (f"; it said: {words}" if words else ""))
    finally:
        if transport is not None:
            lines.give_back(transport, reached)
    printed, output = _parted(done.stdout)
    done = replace(done, stdout=printed + output)
    try:
        snapshot = _with_clock(_snapshot(entry, output), asked, answered)
        sent.learn(transport, snapshot)
        if printed:
            snapshot = _with_session(snapshot, printed=printed.decode("utf-8", "replace")[:PRINTED])
    except ValueError as error:
        problem: ReachProblem = "no-python" if done.returncode in (126, 127) else "probe-failed"
        return failed(problem, _excuse(done, str(error)))
    return Member(entry, Reach(True, seconds=time.monotonic() - begun), HostFacts(snapshot))


def _parted(output: bytes) -> tuple[bytes, bytes]:
    """What the login shell printed, and what came after it."""
    before, mark, after = output.replace(b"\r\n", b"\n").partition(SHELL)
    return (before, after) if mark else (b"", output)


def _with_session(snapshot: Snapshot, **known: Any) -> Snapshot:
    """The snapshot with what is known here of the session, where the probe has told of it."""
    section = snapshot.sections.get("session")
    if section is None or not isinstance(section.value, dict):
        return snapshot
    told = msgspec.structs.replace(section, value={**section.value, **known})
    return msgspec.structs.replace(snapshot, sections={**snapshot.sections, "session": told})


def _with_clock(snapshot: Snapshot, asked: float, answered: float) -> Snapshot:
    """The snapshot with how far the host's clock is ahead of this machine's: a range, as wide as asking took.

    The host read its clock after it was asked and, as many seconds later as its sections took, before its answer
    was here. Sections are worked on side by side; the longest of them is a part of that time for certain.
    """
    section = snapshot.sections.get("os")
    if section is None or not isinstance(section.value, dict) or answered < asked:
        return snapshot
    read = section.value.get("time")
    if not isinstance(read, float):
        return snapshot
    took = max(other.seconds for other in snapshot.sections.values())
    bounds = {"clock_ahead_least": round(read + took - answered, 3), "clock_ahead_most": round(read - asked, 3)}
    told = msgspec.structs.replace(section, value={**section.value, **bounds})
    return msgspec.structs.replace(snapshot, sections={**snapshot.sections, "os": told})


def _snapshot(entry: HostEntry, output: bytes) -> Snapshot:
    """The probe's answer out of all that was printed. Raises ValueError with what is wrong with it."""
    lines = b"\n" + output.replace(b"\r\n", b"\n")
    start = lines.rfind(b"\n" + BEGIN + b"\n")
    stop = lines.find(b"\n" + END, start + 1)
    if start < 0:
        raise ValueError("")
    if stop < 0:
        raise ValueError("its answer is cut off")
    try:
        answer = msgspec.json.decode(lines[start + len(BEGIN) + 2 : stop], type=dict[str, Any])
        refusal = answer.get("error")
        snapshot = msgspec.convert(
            {"origin": f"recorded by dsdoctor {__version__}", **answer, "host": entry.name}, Snapshot
        )
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(f"its answer cannot be read: {error}") from None
    if isinstance(refusal, str) and refusal:
        raise ValueError(refusal)
    return snapshot


def _excuse(done: Completed, reason: str) -> str:
    """Why there is no answer: how the command ended, and the first and last of what it said."""
    if reason and done.returncode == 0:
        return reason
    ended = f"it ended with exit code {done.returncode}"
    if done.returncode < 0:
        name = signal.strsignal(-done.returncode) or "unknown"
        ended = f"it was ended by signal {-done.returncode} ({name})"
    elif done.returncode == 0:
        ended = "it ended without an answer"
    if done.truncated:
        ended += f" and printed more than {OUTPUT_LIMIT >> 20} MiB"
    words = said(done.stderr) or said(done.stdout)
    return "; ".join(part for part in (reason, ended + (f": {words}" if words else "")) if part)
