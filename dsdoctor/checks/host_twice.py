"""Two lines of the hostfile lead to one machine, or two machines hold one address."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

from dsdoctor.addresses import job_links, network_of
from dsdoctor.checks.engine import check
from dsdoctor.checks.job_gpus import wanted
from dsdoctor.checks.lacking import lacking
from dsdoctor.checks.remedy import on_host
from dsdoctor.cluster import Cluster, Member
from dsdoctor.facts import FactUnavailable
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped

BOOTS_APART = 600.0  # seconds; the clocks of one machine's containers do not differ so much, those of two hosts may


@check(severity=Severity.ERROR, since="0.1")
def host_twice(cluster: Cluster) -> Iterator[Finding | Skipped]:
    """Two hosts of the hostfile use the same GPUs, being one machine, or two machines hold the address of one of them.

    ## Why it matters
    A host that stands in the hostfile by two names gets twice its ranks: NCCL stops with `Duplicate GPU detected`, or
    the job runs out of memory. Two machines with one address answer in turns: ssh reaches one and the ranks the other.

    ## How to fix it
    Write each machine into the hostfile once; give each machine an address of its own.

    ## Source
    The UUIDs of the GPUs; the addresses and hardware addresses of the interfaces.
    """
    if len(cluster) < 2:
        return
    yield from lacking(cluster, host_twice, "network")
    yield from _same_gpus(cluster)
    yield from _same_address(cluster)


def _same_gpus(cluster: Cluster) -> Iterator[Finding]:
    holders: dict[str, list[Member]] = {}
    for member in cluster.examined:
        try:
            gpus = member.facts.gpu.gpus if member.facts is not None else ()
        except FactUnavailable:
            continue
        for gpu in gpus:
            if gpu.uuid and wanted(member.entry, gpu.index):
                holders.setdefault(gpu.uuid, []).append(member)
    told: set[tuple[str, ...]] = set()
    for uuid, members in holders.items():
        names = tuple(member.name for member in members)
        if len(names) < 2 or names in told:
            continue
        told.add(names)
        shared = [one for one, those in holders.items() if tuple(member.name for member in those) == names]
        yield host_twice.finding(
            f"{' and '.join(names)} are one machine: ranks of both would use {_counted(len(shared))}",
            hosts=names,
            evidence=[Evidence(text=uuid, source=name) for name in names],
            fix=[Fix("Leave one of the lines out of the hostfile (or give each its own GPUs with --include)")],
        )


def _same_address(cluster: Cluster) -> Iterator[Finding]:
    """The address by which a host takes part is held by another machine, too."""
    links = job_links(cluster)
    held: dict[str, list[tuple[Member, str]]] = {}
    for member in cluster.examined:
        network = network_of(member)
        for interface in network.interfaces if network is not None else ():
            if interface.up and not interface.loopback:
                for address in interface.addresses:
                    held.setdefault(address.address, []).append((member, interface.mac))
    for wanted_one in dict.fromkeys([*(link.address.address for link in links.values()), *_only_addresses(held)]):
        for (one, mac), (other, other_mac) in combinations(held.pop(wanted_one, []), 2):
            if one.name == other.name or not (_differ(mac, other_mac) or _booted_apart(one, other)):
                continue
            yield host_twice.finding(
                f"{one.name} and {other.name} both hold {wanted_one}; each machine wants its own address",
                hosts=[one.name, other.name],
                evidence=[
                    Evidence(text=f"{wanted_one} at {mac}", source=one.name),
                    Evidence(text=f"{wanted_one} at {other_mac}", source=other.name),
                ],
                fix=[
                    Fix(
                        "See which of the two should have it",
                        (on_host(one.entry, "ip -br addr"), on_host(other.entry, "ip -br addr")),
                    )
                ],
            )


def _only_addresses(held: dict[str, list[tuple[Member, str]]]) -> Iterator[str]:
    """The IPv4 addresses of hosts that have no other one: by what else should they take part."""
    of_host: dict[str, list[str]] = {}
    for address, holders in held.items():
        for member, _ in holders:
            if ":" not in address:
                of_host.setdefault(member.name, []).append(address)
    return (addresses[0] for addresses in of_host.values() if len(addresses) == 1)


def _differ(mac: str, other: str) -> bool:
    """Whether two interfaces are not one, by their hardware addresses; where one is not told that is not known."""
    return bool(mac and other) and mac != other


def _booted_apart(one: Member, other: Member) -> bool:
    """Whether two hosts run different kernels, or kernels that were started at different moments."""
    try:
        first, second = (member.facts.os for member in (one, other) if member.facts is not None)
    except FactUnavailable:
        return False
    if first.kernel != second.kernel:
        return True
    started = [each.time - each.uptime_seconds for each in (first, second) if each.time and each.uptime_seconds]
    return len(started) == 2 and abs(started[0] - started[1]) > BOOTS_APART


def _counted(number: int) -> str:
    return "the same GPU" if number == 1 else f"the same {number} GPUs"
