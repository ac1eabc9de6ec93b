"""What a host sends to another one leaves by another interface than the answers come in by."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from dsdoctor.addresses import is_loopback, network_of, overlap, subnets
from dsdoctor.checks.engine import check
from dsdoctor.checks.lacking import lacking
from dsdoctor.checks.remedy import as_root, on_host
from dsdoctor.cluster import Cluster, Member
from dsdoctor.facts import Interface, NetworkFacts, Route
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped

_STRICT = 1  # rp_filter


@dataclass(frozen=True)
class _Way:
    """A route to another host, and the interface at which that host's packets come in."""

    route: Route
    enters: Interface
    leaves: Interface


@check(severity=Severity.WARNING, since="0.1")
def asymmetric_route(cluster: Cluster) -> Iterator[Finding | Skipped]:
    """Packets of another host come in by one interface, and the answers leave by another.

    ## Why it matters
    With a strict reverse path filter (rp_filter = 1, the default of RHEL and CentOS) the kernel drops such packets
    without a word: connections time out in one direction. Without it they work, at the speed of the slower interface,
    until a firewall with states is on the way.

    ## How to fix it
    Have both directions go by one network: the same names in /etc/hosts on all hosts, a network of its own for each
    card. Or make the filter loose (2).

    ## Source
    ip-sysctl.rst (rp_filter), RFC 3704; `ip route get` on both ends. nccl#1580.
    """
    if len(cluster) < 2:
        return
    yield from lacking(cluster, asymmetric_route, "network")
    networks = {member.name: network for member in cluster.examined if (network := network_of(member)) is not None}
    reached = _reached_at(cluster, networks)
    for member in cluster.examined:
        network = networks.get(member.name)
        if network is None or network.policy_rules:
            continue
        ways = list(_ways(member, network, networks, reached.get(member.name, frozenset())))
        if ways:
            yield _finding(member, ways)


def _reached_at(cluster: Cluster, networks: dict[str, NetworkFacts]) -> dict[str, frozenset[str]]:
    """The addresses by which the others reach each host."""
    found: dict[str, set[str]] = {member.name: set() for member in cluster}
    for name, network in networks.items():
        for route in network.routes:
            if route.target != name and route.target in found and route.address and not route.local:
                found[route.target].add(route.address)
    return {name: frozenset(addresses) for name, addresses in found.items()}


def _ways(
    member: Member, network: NetworkFacts, networks: dict[str, NetworkFacts], reached: frozenset[str]
) -> Iterator[_Way]:
    """The hosts whose packets come in by another interface than the answers leave by."""
    by_name = {item.name: item for item in network.interfaces}
    entering = {
        item.name: item
        for item in network.interfaces
        for address in item.addresses
        if address.address in reached and not item.loopback and address.prefix < (32 if "." in address.address else 128)
    }
    if not entering:
        return
    for route in network.routes:
        leaves = by_name.get(route.device or "")
        if leaves is None or route.local or leaves.loopback or leaves.name in entering or route.target not in networks:
            continue
        back = networks[route.target].route(member.name)
        if back is None or back.source != route.address or is_loopback(back.address):
            continue  # the other host comes from another address, to which the way may be another one
        enters = next((item for item in entering.values() if _holds(item, back.address)), None)
        if enters is not None and not _one(enters, leaves):
            yield _Way(route, enters, leaves)


def _holds(interface: Interface, address: str) -> bool:
    return any(held.address == address for held in interface.addresses)


def _one(enters: Interface, leaves: Interface) -> bool:
    """Whether the two are parts of one, or in one network, which is for subnets-overlap."""
    parts = enters.master == leaves.name or leaves.master == enters.name
    return parts or any(overlap(one, other) for one in subnets(enters) for other in subnets(leaves))


def _finding(member: Member, ways: list[_Way]) -> Finding:
    first = ways[0]
    dropped = first.enters.rp_filter == _STRICT
    names = ", ".join(way.route.target for way in ways[:5])
    effect = "; a strict rp_filter drops what comes in" if dropped else ""
    fixes = [
        Fix(
            "See both ways, and make them one: /etc/hosts alike on all hosts, one network for each card",
            (on_host(member.entry, f"ip route get {shlex.quote(first.route.address)}"),),
        )
    ]
    if dropped and member.facts is not None:
        key = f"net.ipv4.conf.{first.enters.name.replace('.', '/')}.rp_filter=2"
        loose = f"sysctl -w {shlex.quote(key)}"
        fixes.append(Fix("Make the filter loose", (as_root(member.facts, member.entry, loose),)))
    return asymmetric_route.finding(
        f"packets from {names} come in by {first.enters.name}, and answers to {first.route.address} leave by "
        f"{first.leaves.name}{effect}",
        severity=Severity.ERROR if dropped else None,
        hosts=[member.name],
        evidence=[
            Evidence(
                text=f"to {way.route.target} ({way.route.address}): by {way.leaves.name}, from {way.route.source}",
                source=member.name,
            )
            for way in ways[:5]
        ],
        fix=fixes,
    )
