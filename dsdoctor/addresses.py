"""The interface and the address by which each host takes part in a job, and what networks its interfaces are in.

The rule is the route to the master, not names and not the order of addresses; on the master it is the address that the
others reach.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_interface

from dsdoctor.cluster import Cluster, Member
from dsdoctor.facts import Address, FactUnavailable, Interface, NetworkFacts

Subnet = IPv4Network | IPv6Network


@dataclass(frozen=True)
class JobLink:
    """The interface that holds the address a host takes part with."""

    interface: Interface
    address: Address


def network_of(member: Member) -> NetworkFacts | None:
    """A host's network facts, None where they are not known."""
    try:
        return member.facts.network if member.facts is not None else None
    except FactUnavailable:
        return None


def job_address(member: Member, cluster: Cluster) -> str | None:
    """The address by which a host takes part in the job; None where that is not known, or is a loopback address.

    It is the source of its route to the master, or on the master itself the one that the others reach.
    """
    network = network_of(member)
    if network is None:
        return None
    if member is not cluster.master:
        route = network.route(cluster.master_name)
        address = route.source if route is not None and not route.local else None
    else:
        held = {address.address for interface in network.interfaces for address in interface.addresses}
        seen = (network_of(other) for other in cluster.members[1:])
        routes = [route for others in seen if others is not None and (route := others.route(cluster.master_name))]
        address = next((route.address for route in routes if route.address in held), None)
    return address if address and not is_loopback(address) else None


def job_link(member: Member, cluster: Cluster) -> JobLink | None:
    """The interface that holds a host's address for the job; None where that is not known."""
    network, wanted = network_of(member), job_address(member, cluster)
    if network is None or wanted is None:
        return None
    for interface in network.interfaces:
        for address in interface.addresses:
            if address.address == wanted and not interface.loopback:
                return JobLink(interface, address)
    return None


def job_links(cluster: Cluster) -> dict[str, JobLink]:
    """The link of each host of which it is known, by the host's name."""
    found = ((member.name, job_link(member, cluster)) for member in cluster.examined)
    return {name: link for name, link in found if link is not None}


def subnet(address: Address) -> Subnet | None:
    """The network that an address is in: None for a link-local or loopback one, a single address, or no address."""
    try:
        network = ip_interface(f"{address.address.partition('%')[0]}/{address.prefix}").network
    except ValueError:
        return None
    alone = network.prefixlen >= network.max_prefixlen
    return None if alone or network.is_link_local or network.is_loopback else network


def subnets(interface: Interface) -> Iterator[Subnet]:
    """The networks that an interface is in."""
    for address in interface.addresses:
        network = subnet(address)
        if network is not None:
            yield network


def overlap(one: Subnet, other: Subnet) -> bool:
    """Whether two networks have addresses in common."""
    return one.version == other.version and one.overlaps(other)


def is_loopback(text: str) -> bool:
    """Whether a text is a loopback address; false for a name."""
    try:
        return ip_address(text).is_loopback
    except ValueError:
        return False


def link_local(text: str) -> bool:
    """Whether a text is an address for one link only; false for what is no address."""
    try:
        return ip_address(text.partition("%")[0]).is_link_local
    except ValueError:
        return False
