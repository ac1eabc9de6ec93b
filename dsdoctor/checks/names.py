"""What the hosts of a cluster take each other's names for."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from dsdoctor.cluster import Cluster
from dsdoctor.facts import FactUnavailable


def is_loopback(address: str) -> bool:
    """Whether a text is a loopback address; false for a name."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


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
        [ipaddress.ip_address(address) for address in answer if not is_link_local(address)] for answer in addresses
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


def views(cluster: Cluster, name: str) -> dict[str, tuple[str, ...]]:
    """The addresses of a name by the host that was asked, empty where it has none.

    Hosts whose network is not known, or that were not asked about this name, are left out.
    """
    seen: dict[str, tuple[str, ...]] = {}
    for member in cluster.examined:
        try:
            addresses = member.facts.network.resolves.get(name) if member.facts else None
        except FactUnavailable:
            continue
        if addresses is not None:
            seen[member.name] = addresses
    return seen
