"""Where the ranks meet: the master's address, a free port, and the interface each host reaches the others by.

The rule is the route, asked of the kernel (`ip route get`) and confirmed from the other end; names and orders of
addresses prove nothing (facts.md §8, §20: DeepSpeed takes the first word of `hostname -I`, which may be docker0).
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from dsdoctor.addresses import subnets
from dsdoctor.cluster import Cluster, Member
from dsdoctor.facts import FactUnavailable, Interface, NetworkFacts, Route
from dsdoctor.plan.model import PlanError

FIRST_PORT = 29500  # torchrun's and DeepSpeed's default


@dataclass(frozen=True)
class Link:
    """The interface by which a host reaches the master (or, on the master, is reached), and how that was found out."""

    device: str
    because: str
    address: str = ""  # that this host takes part with


def master_address(cluster: Cluster) -> str:
    """The address all other hosts reach the master by; 127.0.0.1 when there is one host only.

    Raises:
        PlanError: the hosts do not agree on an address that the master holds.
    """
    if len(cluster) == 1:
        return "127.0.0.1"
    seen: dict[str, list[str]] = {}
    for member in cluster.members[1:]:
        route = _network(member).route(cluster.master_name)
        if route is None or not route.address:
            raise PlanError(
                f"{member.name} cannot resolve {cluster.master_name}, the name of the first host. "
                f"Put its address into /etc/hosts on {member.name}, or name the host by its address in the hostfile."
            )
        seen.setdefault(route.address, []).append(member.name)
    held = {address.address for interface in _network(cluster.master).interfaces for address in interface.addresses}
    usable = [address for address in seen if address in held and not ipaddress.ip_address(address).is_loopback]
    if len(seen) == 1 and usable:
        return usable[0]
    told = "; ".join(f"{', '.join(names)}: {address}" for address, names in sorted(seen.items()))
    if len(usable) == 1 and not any(ipaddress.ip_address(address).is_loopback for address in seen):
        return usable[0]
    raise PlanError(
        f"the hosts do not reach {cluster.master_name} by one address that it holds ({told}; it holds "
        f"{', '.join(sorted(held)) or 'none'}). Give the first host by an address that all others reach."
    )


def link_of(member: Member, cluster: Cluster, master_addr: str) -> tuple[Link, tuple[str, ...]]:
    """The interface a host uses for this job, and warnings where the two ends do not agree.

    Raises:
        PlanError: no interface of the host leads to the master.
    """
    if member is cluster.master:
        return _link_of_master(member, cluster, master_addr)
    network = _network(member)
    route = _route_to_master(network, cluster, master_addr)
    if route is None or not route.device:
        reason = route.error if route and route.error else "no route was found"
        raise PlanError(f"{member.name} has no way to {master_addr}: {reason}. Check its network and its /etc/hosts.")
    source = route.source or ""
    link = Link(route.device, f"the route to {master_addr} leaves by {route.device}", source)
    owner = _holder(network, source) if source else None
    warnings = []
    if owner and owner != route.device:
        warnings.append(f"{member.name}: packets to {master_addr} leave by {route.device} with an address of {owner}")
    warnings += _strays(member, cluster, link)
    return link, tuple(warnings)


def _link_of_master(member: Member, cluster: Cluster, master_addr: str) -> tuple[Link, tuple[str, ...]]:
    """On the master, the interface that holds its address, or the one by which all its answers leave.

    The two differ where it has two cards in one network. Then the one that answers leave by is taken, if the other
    hosts reach it directly: both ways go by it, and no strict filter drops them.
    """
    network = _network(member)
    device = _holder(network, master_addr)
    if device is None:
        raise PlanError(f"{member.name} holds no interface with the address {master_addr}, by which it is reached.")
    link = Link(device, f"{device} holds {master_addr}, the address that the other hosts reach", master_addr)
    ways = {other.name: _way_back(network, other, cluster, master_addr) for other in cluster.members[1:]}
    strays = sorted({way for way in ways.values() if way and way != device})
    if not strays:
        return link, ()
    if len(strays) == 1 and all(way == strays[0] for way in ways.values()):
        address = _reached_directly(network, strays[0], cluster, master_addr)
        if address:
            because = f"answers to the other hosts leave by {strays[0]}, which is in their network as {device} is"
            return Link(strays[0], because, address), ()
    return link, (
        f"{member.name}: answers to other hosts leave by {', '.join(strays)} although they arrive at {device}",
    )


def _way_back(network: NetworkFacts, other: Member, cluster: Cluster, master_addr: str) -> str | None:
    """The interface by which the master's answers to a host leave; None where that is not known.

    The address that counts is the one that the host's own packets come from: its name may mean another one here.
    """
    forth = _route_to_master(_network(other), cluster, master_addr)
    source = forth.source if forth is not None else None
    exact = next((route for route in network.routes if source and route.address == source), None)
    if exact is not None:
        return None if exact.local else exact.device
    if source:
        on_link = [interface.name for interface in network.interfaces if _in_networks(source, interface)]
        return on_link[0] if len(on_link) == 1 else None
    route = network.route(other.name)
    return route.device if route is not None and not route.local else None


def _reached_directly(network: NetworkFacts, device: str, cluster: Cluster, master_addr: str) -> str | None:
    """The address of a master's interface that is in a network with the interface of every other host."""
    interface = network.interface(device)
    if interface is None or not interface.up:
        return None
    others = []
    for other in cluster.members[1:]:
        route = _route_to_master(_network(other), cluster, master_addr)
        there = _network(other).interface(route.device) if route is not None and route.device else None
        if there is None:
            return None
        others.append(there)
    for held in interface.addresses:
        if all(_in_networks(held.address, there) for there in others):
            return held.address
    return None


def _strays(member: Member, cluster: Cluster, link: Link) -> list[str]:
    """Other hosts but the master that this one reaches by another interface than the job's."""
    found: dict[str, list[str]] = {}
    for other in cluster.members[1:]:
        route = None if other is member else _network(member).route(other.name)
        if route is not None and route.device and not route.local and route.device != link.device:
            found.setdefault(route.device, []).append(other.name)
    return [
        f"{member.name}: packets to {', '.join(names)} leave by {device}, and the job's interface is {link.device}"
        for device, names in found.items()
    ]


def _route_to_master(network: NetworkFacts, cluster: Cluster, master_addr: str) -> Route | None:
    """A host's route to the master's address; by its name, where the host asked for nothing else."""
    exact = next((route for route in network.routes if route.address == master_addr), None)
    return exact or network.route(cluster.master_name)


def _in_networks(address: str, interface: Interface) -> bool:
    """Whether an address is in one of an interface's networks."""
    try:
        return any(ipaddress.ip_address(address.partition("%")[0]) in network for network in subnets(interface))
    except ValueError:
        return False


def free_port(cluster: Cluster, wanted: int | None = None) -> int:
    """A port that nobody listens on at the master: the wanted one, else the first free one from 29500 on.

    Raises:
        PlanError: the wanted port is taken.
    """
    try:
        taken = set(_network(cluster.master).listening)
    except PlanError:
        taken = set()
    if wanted is not None:
        if wanted in taken:
            raise PlanError(
                f"port {wanted} on {cluster.master.name} is already listened on. Leave out --master-port, and a free "
                f"one is taken, or end what holds it: ss -ltnp 'sport = :{wanted}'"
            )
        return wanted
    return next(port for port in range(FIRST_PORT, 65536) if port not in taken)


def _network(member: Member) -> NetworkFacts:
    if member.facts is None:
        raise PlanError(f"{member.name} could not be examined, so nothing can be planned for it.")
    try:
        return member.facts.network
    except FactUnavailable as error:
        raise PlanError(
            f"{member.name}: its network is not known ({error.reason}), so nothing can be planned."
        ) from None


def _holder(network: NetworkFacts, address: str) -> str | None:
    """The interface that holds an address."""
    for interface in network.interfaces:
        if any(held.address == address for held in interface.addresses):
            return interface.name
    return None
