"""Guardians that hear of each other, and events of several hosts in their order: real processes and sockets."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from dsdoctor.hosts.transport import RemoteProcess
from dsdoctor.hosts.transport.local import LocalTransport
from dsdoctor.run import guard
from dsdoctor.run.events import LineSeen
from dsdoctor.run.execute import execute
from dsdoctor.run.guardian import peers as module
from dsdoctor.run.guardian.follower import lives
from dsdoctor.run.guardian.line import Line
from dsdoctor.run.guardian.peers import Peers
from dsdoctor.run.guardian.spool import read_json
from dsdoctor.run.in_order import InOrder
from dsdoctor.run.kept import load
from dsdoctor.run.outcome import Manner
from dsdoctor.run.reach import look
from dsdoctor.run.stage_end import Failures, HostEnd, StageEnd, failure_of
from tests.run.plans import Seen, plan_of, transports_of
from tests.run.test_detached import QUICK, head_of, merged, taken_over, wait_for_lines, written_down

KEY = bytes(32)


def pair(first: bytes = KEY, second: bytes = KEY) -> tuple[Line, Line]:
    """Both ends of a line between two guardians."""
    here, there = socket.socketpair()
    ends: list[Line] = []
    thread = threading.Thread(target=lambda: ends.append(Line(there, second, listens=False)))
    thread.start()
    ends.append(Line(here, first, listens=True))
    thread.join()
    return (ends[0], ends[1]) if ends[0].connection is here else (ends[1], ends[0])


def test_words_go_both_ways_and_a_stranger_s_do_not() -> None:
    one, other = pair()
    for number in range(3):
        one.send({"host": "a", "number": number})
        assert other.receive() == {"host": "a", "number": number}
    other.send({"failed": "x"})
    assert one.receive() == {"failed": "x"}
    one, other = pair(second=bytes(31) + b"\1")
    one.send({"failed": "x"})
    with pytest.raises(OSError, match="not signed"):
        other.receive()


def test_a_word_that_is_said_again_by_somebody_else_is_refused() -> None:
    one, other = pair()
    one.send({"failed": "x"})
    copy = other.connection.recv(4096)
    one.connection.sendall(copy)  # once as it was meant, once repeated
    one.connection.sendall(copy)
    assert other.receive() == {"failed": "x"}
    with pytest.raises(OSError, match="not signed"):
        other.receive()


def test_a_stranger_at_the_port_is_told_nothing() -> None:
    here, there = socket.socketpair()
    there.sendall(b"SSH-2.0-OpenSSH_9.2p1\r\n")
    with pytest.raises(OSError, match="stranger"):
        Line(here, KEY, listens=False)
    there.setblocking(False)
    with pytest.raises(BlockingIOError):
        there.recv(1)


def until(happens: Any, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < end
        time.sleep(0.02)


class Party:
    """A guardian's ear, and what it was told to do."""

    def __init__(self, name: str, ports: list[int], lifeline: float, hosts: int = 3) -> None:
        order = {"name": name, "first": name == "a", "addr": "127.0.0.1", "ports": ports, "key": "00" * 32}
        self.ended: list[tuple[str, str]] = []
        self.notes: list[str] = []
        self.peers = Peers({**order, "hosts": hosts}, lifeline, lambda *why: self.ended.append(why), self.notes.append)
        self.peers.start()

    def knows(self, *names: str) -> bool:
        """Whether it holds lines to these hosts."""
        return set(names) <= set(self.peers._lines)


def free_ports(count: int) -> list[int]:
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [server.getsockname()[1] for server in held]
    for server in held:
        server.close()
    return ports


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BEAT_SECONDS", 0.1)
    monkeypatch.setattr(module, "HEAD_SECONDS", 0.2)


@pytest.mark.parametrize("failing", ["a", "b"])
@pytest.mark.usefixtures("quick")
def test_a_failure_anywhere_ends_all_others_and_names_its_host(failing: str) -> None:
    taken, *ports = free_ports(3)
    with socket.create_server(("127.0.0.1", taken)) as stranger:
        parties = {name: Party(name, [taken, *ports], 600) for name in "abc"}
        until(lambda: parties["a"].knows("b", "c") and parties["b"].knows("a") and parties["c"].knows("a"))
        stranger.settimeout(0)
        for party in parties.values():
            party.peers.patience = 0.2
        parties[failing].peers.tell_end("its ranks ended with code 1")
        others = [party for name, party in parties.items() if name != failing]
        until(lambda: all(party.ended for party in others))
        for party in others:
            ((host, why),) = party.ended
            assert host == failing
            assert why.startswith(f"{failing} failed (its ranks ended with code 1), and no head stopped this host")
        assert parties[failing].ended == []


@pytest.mark.usefixtures("quick")
def test_who_ended_well_is_not_missed_and_who_falls_silent_is() -> None:
    parties = {name: Party(name, free, 1.0) for free in [free_ports(1)] for name in "abc"}
    until(lambda: parties["a"].knows("b", "c") and parties["b"].knows("a") and parties["c"].knows("a"))
    parties["b"].peers.tell_end(None)
    parties["c"].peers.say = lambda word, but="": None  # type: ignore[method-assign]
    until(lambda: bool(parties["a"].ended))
    assert parties["a"].ended[0][0] == "c"
    assert "nothing was heard of c for 2 s" in parties["a"].ended[0][1]
    assert parties["b"].ended == []


@pytest.mark.usefixtures("quick")
def test_a_line_that_never_came_to_be_accuses_nobody_and_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "UNREACHED_SECONDS", 0.3)
    lonely = Party("b", free_ports(2), 0.1)
    until(lambda: bool(lonely.notes))
    time.sleep(1)
    assert lonely.ended == []
    assert "the guardian of the first host is not reached at 127.0.0.1" in lonely.notes[0]
    held = [socket.create_server(("", port)) for port in free_ports(2)]
    crowded = Party("a", [server.getsockname()[1] for server in held], 0.1)
    until(lambda: bool(crowded.notes))
    assert "are all taken here" in crowded.notes[0]
    for server in held:
        server.close()


def test_without_a_head_a_failure_on_one_host_ends_the_others(tmp_path: Path) -> None:
    fail = tmp_path / "fail"
    failing = f"echo up; while [ ! -e {fail} ]; do sleep 0.1; done; exit 3"
    directory, plan = written_down({"one": {"a": "echo up; sleep 600", "b": failing, "c": "sleep 600"}}, tmp_path)
    head = head_of(directory)
    wait_for_lines(directory, "1-one", 2)
    head.kill()
    head.wait()
    fail.touch()
    kept = load(directory)
    until(lambda: not any(host.alive for host in look(kept, transports_of(plan))), 60)
    for host in look(kept, transports_of(plan)):
        end = host.guardians[0].end
        assert end is not None
        if host.host == "b":
            assert (end["code"], end["stopped"]) == (3, None)
        else:
            assert end["peer"] == "b"
            assert end["stopped"].startswith("b failed (its ranks ended with code 3), and no head")
    outcome = taken_over(directory, plan, Seen())
    assert outcome.failure == "stage one failed: b ended with exit code 3"
    said = [line for line in merged(directory, "1-one") if "the guardian of a ended the job: b failed" in line]
    assert len(said) == 1


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("how", ["fails", "falls silent"])
def test_the_first_host_whose_part_ended_well_passes_on_what_befalls_a_later_one(how: str) -> None:
    parties = {name: Party(name, free, 600.0 if how == "fails" else 1.0) for free in [free_ports(1)] for name in "abc"}
    until(lambda: parties["a"].knows("b", "c") and parties["b"].knows("a") and parties["c"].knows("a"))
    for party in parties.values():
        party.peers.patience = 0.2
    parties["a"].peers.tell_end(None)
    lingering = threading.Thread(target=parties["a"].peers.linger, args=(lambda: False,), daemon=True)
    lingering.start()
    if how == "fails":
        parties["c"].peers.tell_end("its ranks ended with code 3")
    else:
        parties["c"].peers.say = lambda word, but="": None  # type: ignore[method-assign]
    until(lambda: bool(parties["b"].ended))
    ((host, why),) = parties["b"].ended
    assert host == "c"
    assert ("c failed (its ranks ended with code 3)" if how == "fails" else "nothing was heard of it for 2 s") in why
    assert lingering.is_alive(), "b is still on"
    parties["b"].peers.tell_end(why)
    lingering.join(30)
    assert not lingering.is_alive()


@pytest.mark.usefixtures("quick")
def test_a_first_host_that_is_done_before_the_others_come_waits_for_them() -> None:
    free = free_ports(1)
    first = Party("a", free, 600.0, 3)
    first.peers.tell_end(None)
    lingering = threading.Thread(target=first.peers.linger, args=(lambda: False,), daemon=True)
    lingering.start()
    lingering.join(0.5)
    others = {name: Party(name, free, 600.0, 3) for name in "bc"}
    until(lambda: first.knows("b", "c"))
    others["b"].peers.patience = 0.2
    others["c"].peers.tell_end("its ranks ended with code 3")
    until(lambda: bool(others["b"].ended))
    assert others["b"].ended[0][0] == "c"
    others["b"].peers.tell_end("c failed")
    lingering.join(30)
    assert not lingering.is_alive()


def test_a_first_host_waits_for_those_that_never_come_only_so_long() -> None:
    first = Party("a", free_ports(1), 600.0, 3)
    first.peers.tell_end(None)
    first.peers.limit = 0.2
    lingering = threading.Thread(target=first.peers.linger, args=(lambda: False,), daemon=True)
    lingering.start()
    lingering.join(30)
    assert not lingering.is_alive()


@pytest.mark.usefixtures("quick")
def test_who_lingers_ends_when_it_is_asked_to_and_nobody_else_lingers() -> None:
    parties = {name: Party(name, free, 600.0, 2) for free in [free_ports(1)] for name in "ab"}
    until(lambda: parties["a"].knows("b") and parties["b"].knows("a"))
    parties["a"].peers.tell_end(None)
    parties["b"].peers.linger(lambda: False)
    asked = threading.Event()
    lingering = threading.Thread(target=parties["a"].peers.linger, args=(asked.is_set,), daemon=True)
    lingering.start()
    asked.set()
    lingering.join(30)
    assert not lingering.is_alive()


def test_who_was_never_heard_of_and_ends_well_waits_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WORD_SECONDS", 600.0)
    lonely = Party("b", free_ports(1), 600.0)
    ending = threading.Thread(target=lonely.peers.tell_end, args=(None,), daemon=True)
    ending.start()
    ending.join(60)
    assert not ending.is_alive()


def test_without_a_head_a_host_that_fails_after_the_first_has_ended_ends_the_others(tmp_path: Path) -> None:
    fail = tmp_path / "fail"
    failing = f"echo up; while [ ! -e {fail} ]; do sleep 0.1; done; exit 3"
    directory, plan = written_down({"one": {"a": "echo up", "b": failing, "c": "echo up; sleep 600"}}, tmp_path)
    head = head_of(directory)
    wait_for_lines(directory, "1-one", 3)
    head.kill()
    head.wait()
    kept = load(directory)
    until(lambda: look(kept, transports_of(plan))[0].guardians[0].end is not None, 60)
    fail.touch()
    until(lambda: not any(host.alive for host in look(kept, transports_of(plan))), 60)
    a, b, c = (host.guardians[0].end for host in look(kept, transports_of(plan)))
    assert a is not None and b is not None and c is not None
    assert (a["code"], b["code"], c["peer"]) == (0, 3, "b")
    spools = [Path(guard.spool_of(host, plan.stages[0], 1)) for host in plan.hosts]
    until(lambda: not any(lives(read_json(str(spool), "identity") or {}) for spool in spools), 60)


def test_a_living_head_stops_the_others_before_their_guardians_do(tmp_path: Path) -> None:
    directory, plan = written_down({"one": {"a": "sleep 600", "b": "sleep 1; exit 3"}}, tmp_path)
    seen = Seen()
    outcome = taken_over(directory, plan, seen)
    assert outcome.failure == "stage one failed: b ended with exit code 3"
    assert not any("no head" in event.text for event in seen.of(LineSeen))  # type: ignore[attr-defined]


def test_the_key_is_the_attempt_s_and_only_detached_runs_of_several_hosts_have_one(tmp_path: Path) -> None:
    plan = plan_of({"one": {"a": "true", "b": "true"}}, tmp_path)
    stage = plan.stages[0]
    first = guard.order_for(plan, stage, "a", 5, 1, 1, True, "ab" * 32)["peers"]
    second = guard.order_for(plan, stage, "b", 5, 1, 1, True, "ab" * 32)["peers"]
    assert (first["first"], second["first"]) == (True, False)
    assert first["ports"] == second["ports"]
    assert len(set(first["ports"])) == 8
    assert all(20000 <= port < 29400 for port in first["ports"])
    assert guard.order_for(plan, stage, "a", 5, 1, 1, False, "ab" * 32)["peers"] is None


# --- the order of events


def test_frames_of_several_hosts_come_in_the_order_in_which_they_were_made() -> None:
    merging = InOrder(["a", "b"])
    for at in (1.0, 3.0, 5.0):
        merging.put("a", {"e": "line", "happened": at})
    assert list(merging.take(100)) == [], "b may have said something before"
    for at in (0.5, 2.0, 4.0):
        merging.put("b", {"e": "line", "happened": at})
    assert [frame["happened"] for _, frame in merging.take(100)] == [0.5, 1.0, 2.0, 3.0, 4.0]
    merging.put("b", {"e": "beat", "caught_up": True})
    merging.put("a", {"e": "exit", "happened": 6.0})
    assert [name for name, _ in merging.take(100)] == ["b", "a", "a"]
    merging.put("b", {"e": "line", "happened": 7.0})
    assert len(list(merging.take(100))) == 1, "nobody is behind any more"


def test_a_host_that_says_nothing_holds_up_the_others_for_a_moment_only() -> None:
    merging = InOrder(["a", "b"])
    merging.put("a", {"e": "line", "happened": 1.0})
    assert list(merging.take(100)) == []
    assert len(list(merging.take(106))) == 1


def test_the_first_failure_is_the_earliest_not_the_first_that_was_heard() -> None:
    failures = Failures()
    assert failures.first is None
    assert failures.add("a", 12.0)
    assert not failures.add("b", 11.0)
    failures.add("b", 1.0)
    assert failures.first == "b"
    failures.accuse("a")
    assert failures.first == "a"
    assert Failures("c").first == "c"


def test_two_guardians_that_lost_each_other_are_both_named(tmp_path: Path) -> None:
    stage = plan_of({"one": {"a": "true", "b": "true"}}, tmp_path).stages[0]
    hosts = {name: HostEnd(-15, stopped=f"nothing was heard of {other}") for name, other in ("ab", "ba")}
    failure = failure_of(stage, StageEnd(hosts, None, False, 1.0))
    assert failure == "stage one failed: the guardian of a ended the job (nothing was heard of b)"


class Slow(LocalTransport):
    """A host to which the way is long."""

    def start(self, argv: Sequence[str]) -> RemoteProcess:
        time.sleep(1.5)
        return super().start(argv)


def test_what_was_said_without_a_head_is_logged_in_its_order_and_the_earliest_failure_is_the_first(
    tmp_path: Path,
) -> None:
    go = tmp_path / "go"
    effect = f"echo up; while [ ! -e {go} ]; do sleep 0.1; done; sleep 1; echo effect; exit 1"
    cause = f"echo up; while [ ! -e {go} ]; do sleep 0.1; done; echo cause; exit 3"
    directory, plan = written_down({"one": {"a": effect, "b": cause}}, tmp_path)
    head = head_of(directory)
    wait_for_lines(directory, "1-one", 2)
    head.kill()
    head.wait()
    go.touch()
    kept = load(directory)
    until(lambda: not any(host.alive for host in look(kept, transports_of(plan))), 60)
    lines = transports_of(plan)
    lines["b"] = Slow(lines["b"].host)
    with directory.locked():
        outcome = execute(plan, lines, directory, Seen(), limits=QUICK, manner=Manner(detach=True))
    assert outcome.failure == "stage one failed: b ended with exit code 3"
    order = [line for line in merged(directory, "1-one") if "cause" in line or "effect" in line]
    assert order == ["b:-| cause", "a:-| effect"]


def test_a_host_s_clock_is_translated(tmp_path: Path) -> None:
    plan = plan_of({"one": {"a": "true"}}, tmp_path)
    taken: list[dict[str, Any]] = []
    line = guard.Guard(plan.hosts[0], transports_of(plan)["a"], lambda name, frame: taken.append(frame))
    for heard, now in ((1000.0, 90_000.0), (1001.5, 90_001.0), (1002.0, 90_002.0)):  # the second came late
        line.heard = heard
        line._date({"now": now})
    frame: dict[str, Any] = {"m": 90_001.75}
    line._date(frame)
    assert frame["happened"] == 1001.75
    line.heard = 1001.0
    future: dict[str, Any] = {"m": 95_000.0}
    line._date(future)
    assert future["happened"] == 1001.0, "nothing is heard before it happened"
