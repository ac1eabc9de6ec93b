"""What the hosts of a cluster take each other's names for."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping

from dsdoctor.cluster import Cluster
from dsdoctor.facts import FactUnavailable, NetworkFacts

NO_ANSWER = "no answer within"  # how the probe says that a resolver took too long: that tells nothing about the name


def is_address(name: str) -> bool:
    """Whether a host is named by its address."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def disagree(addresses: Iterable[tuple[str, ...]]) -> bool:
    """Whether answers for one name cannot be one machine: no address common to all, within a family.

    An IPv4 answer here and an IPv6 answer there say nothing, nor do link-local addresses.
    """
    answers = [
        [ipaddress.ip_address(address) for address in answer if not is_link_local(address)]
        for answer in dict.fromkeys(addresses)
    ]
    for version in (4, 6):
        sets = [{address for address in answer if address.version == version} for answer in answers]
        sets = [answer for answer in sets if answer]
        if len(sets) > 1 and not set.intersection(*sets):
            return True
    return False


def is_link_local(address: str) -> bool:
    """Whether an address is for one link only; true too for a text that is no address."""
    try:
        return ipaddress.ip_address(address).is_link_local
    except ValueError:
        return True


def networks(cluster: Cluster) -> dict[str, NetworkFacts]:
    """The network of each host of which it is known, by the host's name."""
    known: dict[str, NetworkFacts] = {}
    for member in cluster.examined:
        try:
            if member.facts is not None:
                known[member.name] = member.facts.network
        except FactUnavailable:
            continue
    return known


def views(known: Mapping[str, NetworkFacts], name: str) -> dict[str, tuple[str, ...]]:
    """The addresses of a name by the host that was asked, empty where it has none.

    Hosts that were not asked about this name or whose resolver did not answer in time are left out.
    """
    seen: dict[str, tuple[str, ...]] = {}
    for host, network in known.items():
        answer = network.resolves.get(name)
        if answer or (answer is not None and not network.resolve_errors.get(name, "").startswith(NO_ANSWER)):
            seen[host] = answer
    return seen
