"""The network of the job is on a second interface of the same host, too."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from dsdoctor.addresses import JobLink, job_links, network_of, overlap, subnet, subnets
from dsdoctor.checks.engine import check
from dsdoctor.checks.interfaces import private_bridge
from dsdoctor.checks.lacking import lacking
from dsdoctor.checks.remedy import on_host
from dsdoctor.cluster import Cluster, Member
from dsdoctor.facts import Interface, NetworkFacts, Route
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped


@check(severity=Severity.WARNING, since="0.1")
def subnets_overlap(cluster: Cluster) -> Iterator[Finding | Skipped]:
    """Two interfaces of a host are in one network, or a bridge inside the host covers addresses of other hosts.

    ## Why it matters
    With two cards in one network the kernel answers for both addresses on either of them and sends by the first that
    its routes name: data leaves by the other card than NCCL chose, at that card's speed, or is dropped by a reverse
    path filter. A bridge of Docker's whose 172.17.0.0/16 holds the other hosts' addresses takes their packets for
    containers: they never leave the host.

    ## How to fix it
    Give each card a network of its own, or take the address off the one that the job does not need. Move Docker's
    networks out of the way in /etc/docker/daemon.json ("bip", "default-address-pools").

    ## Source
    ip-sysctl.rst of the Linux kernel (arp_filter, rp_filter); nccl#1580 and nccl#1581.
    """
    if len(cluster) < 2:
        return
    yield from lacking(cluster, subnets_overlap, "network")
    links = job_links(cluster)
    for member in cluster.examined:
        network = network_of(member)
        if network is None:
            continue
        bridges = {item.name: item for item in network.interfaces if private_bridge(network, item)}
        caught = [route for route in network.routes if route.device in bridges and not route.local and not route.via]
        caught = [route for route in caught if _elsewhere(bridges[route.device or ""], route.target, links)]
        if caught:
            yield _swallowed(member, bridges[caught[0].device or ""], caught)
        link = links.get(member.name)
        if link is not None and link.interface.name not in bridges:
            yield from _twice(member, network, link)


def _elsewhere(bridge: Interface, name: str, links: dict[str, JobLink]) -> bool:
    """Whether a host of the job is known not to be one of the guests behind a bridge: it is in another network."""
    link = links.get(name)
    return link is not None and subnet(link.address) not in set(subnets(bridge))


def _swallowed(member: Member, bridge: Interface, caught: list[Route]) -> Finding:
    held = next((f"{address.address}/{address.prefix}" for address in bridge.addresses), "no address")
    names = ", ".join(route.target for route in caught[:5])
    return subnets_overlap.finding(
        f"packets to {names} go to {bridge.name} ({held}), a bridge inside this host, and never leave it",
        severity=Severity.ERROR,
        hosts=[member.name],
        evidence=[Evidence(text=f"{route.address} goes to {route.device}", source=member.name) for route in caught[:5]],
        fix=[
            Fix(
                f"Give {bridge.name} another network (Docker: bip, default-address-pools in /etc/docker/daemon.json)",
                (on_host(member.entry, f"ip route get {shlex.quote(caught[0].address)}"),),
            )
        ],
    )


def _twice(member: Member, network: NetworkFacts, link: JobLink) -> Iterator[Finding]:
    """Another running interface in the network of the job's."""
    own = subnet(link.address)
    if own is None or network.policy_rules:  # rules by source send each answer out where the question came in
        return
    for other in network.interfaces:
        if other.name == link.interface.name or not other.up or other.loopback or _belong(other, link.interface):
            continue
        both = [net for net in subnets(other) if overlap(net, own)]
        if not both:
            continue
        held = next((a.address for a in other.addresses if subnet(a) == both[0]), "")
        yield subnets_overlap.finding(
            f"{link.interface.name} ({link.address.address}/{link.address.prefix}), by which the job goes, and "
            f"{other.name} ({held}/{both[0].prefixlen}) are in one network",
            hosts=[member.name],
            evidence=[Evidence(f"{link.interface.name}: {own}; {other.name}: {both[0]}", member.name)],
            fix=[
                Fix(
                    f"Take {other.name} out of that network, or see which of the two packets leave by",
                    (on_host(member.entry, "ip route show; ip neigh show"),),
                )
            ],
        )


def _belong(one: Interface, other: Interface) -> bool:
    """Whether one is a part of the other, or both are adapters of one InfiniBand fabric, where that is usual."""
    rails = one.name.startswith("ib") and other.name.startswith("ib")
    part = one.master == other.name or other.master == one.name
    return rails or part or "macvlan" in (one.kind, other.kind) or "ipvlan" in (one.kind, other.kind)
