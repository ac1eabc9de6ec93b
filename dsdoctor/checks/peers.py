"""What came of the network trial (`--network`), for the checks that judge it."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.engine import Check
from dsdoctor.cluster import Cluster, Member
from dsdoctor.facts import FactUnavailable, HostFacts, Interface, Peer, PeerFacts
from dsdoctor.report.model import Skipped


def trials(cluster: Cluster) -> Iterator[tuple[Member, HostFacts, PeerFacts]]:
    """The hosts that took part, with what they saw; none at all when the network was not tried."""
    for member in cluster.examined:
        if member.facts is None or "peers" not in member.facts.snapshot.sections:
            continue
        try:
            yield member, member.facts, member.facts.peers
        except FactUnavailable:
            continue


def absent(cluster: Cluster, check: Check) -> Iterator[Skipped]:
    """The hosts that should have taken part and did not, each with the reason."""
    for member in cluster.examined:
        if member.facts is None or "peers" not in member.facts.snapshot.sections:
            continue
        try:
            _ = member.facts.peers
        except FactUnavailable as missing:
            yield check.skipped([member.name], missing.reason)


def seen_by(trial: PeerFacts | None, name: str) -> Peer | None:
    """What a host saw of another one."""
    return next((peer for peer in trial.peers if peer.peer == name), None) if trial else None


def interface_of(facts: HostFacts, trial: PeerFacts) -> Interface | None:
    """The interface that holds the address that a host took part with."""
    try:
        interfaces = facts.network.interfaces
    except FactUnavailable:
        return None
    held = (each for each in interfaces if any(address.address == trial.address for address in each.addresses))
    return next(held, None)
