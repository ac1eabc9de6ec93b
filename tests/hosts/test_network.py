"""The network trial among programs of this machine, each at a loopback address of its own."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dsdoctor.cluster import Cluster, HostEntry, Member, Reach
from dsdoctor.facts import FactUnavailable, HostFacts, PeerFacts, Section, Snapshot
from dsdoctor.hosts import network
from dsdoctor.hosts.network_trial import tournament
from dsdoctor.hosts.transport.local import LocalTransport

ADDRESSES = {"a": "127.0.3.1", "b": "127.0.3.2", "c": "127.0.3.3"}


def member(name: str, python: str | None = None) -> Member:
    """A host whose route to the first one leaves from its own address."""
    own = {"address": ADDRESSES[name], "prefix": 8}
    route = {"target": "a", "address": ADDRESSES["a"], "device": "eth0", "source": ADDRESSES[name]}
    facts = {"interfaces": [{"name": "eth0", "up": True, "addresses": [own]}], "routes": [route]}
    snapshot = Snapshot(host=name, sections={"network": Section(value=facts)})
    return Member(HostEntry(name, 1, local=True, python=python or sys.executable), Reach(True), HostFacts(snapshot))


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loopback addresses count as any other, and nobody is waited for long."""
    monkeypatch.setattr("dsdoctor.addresses.is_loopback", lambda address: False)
    monkeypatch.setattr(network, "MOMENT", 0.05)
    monkeypatch.setattr(network, "READY", 5.0)


def tried(*members: Member) -> dict[str, PeerFacts | str]:
    cluster = Cluster(members)
    answers: dict[str, PeerFacts | str] = {}
    for each in network.try_network(cluster, {each.name: LocalTransport(each.entry) for each in members}):
        assert each.facts is not None
        try:
            answers[each.name] = each.facts.peers
        except FactUnavailable as missing:
            answers[each.name] = missing.reason
    return answers


@pytest.mark.usefixtures("short")
def test_every_host_tries_every_other_and_each_pair_is_measured_once() -> None:
    answers = tried(*(member(name) for name in ADDRESSES))
    measured = []
    for name, answer in answers.items():
        assert isinstance(answer, PeerFacts)
        assert answer.address == ADDRESSES[name]
        assert {peer.peer for peer in answer.peers} == set(ADDRESSES) - {name}
        for peer in answer.peers:
            kinds = {port.kind for port in peer.ports}
            assert kinds == ({"ephemeral", "master"} if peer.peer == "a" else {"ephemeral"})
            assert all(port.error is None and port.round_trip_ms is not None for port in peer.ports)
            if peer.send_mbit is not None:
                assert peer.receive_mbit is not None and min(peer.send_mbit, peer.receive_mbit) > 0
                measured.append(frozenset((name, peer.peer)))
    assert len(measured) == len(set(measured)) == 3


@pytest.mark.usefixtures("short")
def test_a_host_that_never_begins_costs_the_others_little(tmp_path: Path) -> None:
    hanging = tmp_path / "python"
    hanging.write_text("#!/bin/sh\nread _\nexec cat >/dev/null\n")
    hanging.chmod(0o755)
    answers = tried(member("a"), member("b"), member("c", str(hanging)))
    assert isinstance(answers["a"], PeerFacts)
    assert {peer.peer: peer.error for peer in answers["a"].peers} == {"b": None, "c": "it was not ready in time"}
    assert answers["c"] == "the network trial did not end: no answer"


@pytest.mark.usefixtures("short")
def test_a_host_without_python_is_told_with_what_it_said() -> None:
    answers = tried(member("a"), member("b"), member("c", "/no/such/python"))
    assert "No such file" in str(answers["c"])


@pytest.fixture
def stranger() -> Iterator[int]:
    """Another program that listens at b's address and says hello."""
    server = socket.create_server((ADDRESSES["b"], 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            connection.sendall(b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n")
            connection.close()

    threading.Thread(target=serve, daemon=True).start()
    yield server.getsockname()[1]
    server.close()


@pytest.mark.usefixtures("short")
def test_another_program_at_the_port_is_not_taken_for_the_host(stranger: int, monkeypatch: pytest.MonkeyPatch) -> None:
    real = network._Part.tell

    def tell(part: network._Part, ports: dict[str, dict[str, object]]) -> None:
        real(part, {**ports, "b": {**ports["b"], "ephemeral": stranger}})

    monkeypatch.setattr(network._Part, "tell", tell)
    answer = tried(member("a"), member("b"))["a"]
    assert isinstance(answer, PeerFacts)
    assert answer.peers[0].ports[0].error == "another program answers at this address"


def test_one_host_and_hosts_without_an_address_take_no_part() -> None:
    assert tried(member("a")) == {"a": "its address for the job is not known, so it took no part in the network trial"}
    assert set(tried(member("a"), member("b")).values()) == {  # loopback addresses are no way to another host
        "its address for the job is not known, so it took no part in the network trial"
    }


@pytest.mark.parametrize("count", [2, 3, 4, 5, 8, 9])
def test_in_a_tournament_all_meet_once(count: int) -> None:
    names = [f"h{number}" for number in range(count)]
    met = []
    for pairs in tournament(names):
        assert all(pairs[pairs[name]] == name for name in pairs)
        met += [pair for pair in pairs.items() if pair[0] < pair[1]]
    assert len(met) == len(set(met)) == count * (count - 1) // 2
