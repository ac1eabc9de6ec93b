"""Where the ranks meet: the master's address, a free port, and the interface each host reaches the others by.

The rule is the route, asked of the kernel (`ip route get`) and confirmed from the other end; names and orders of
addresses prove nothing (facts.md §8, §20: DeepSpeed takes the first word of `hostname -I`, which may be docker0).
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from dsdoctor.cluster import Cluster, Member
from dsdoctor.facts import FactUnavailable, NetworkFacts
from dsdoctor.plan.model import PlanError

FIRST_PORT = 29500  # torchrun's and DeepSpeed's default


@dataclass(frozen=True)
class Link:
    """The interface by which a host reaches the master (or, on the master, is reached), and how that was found out."""

    device: str
    because: str


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
    network = _network(member)
    if member is cluster.master:
        device = _holder(network, master_addr)
        if device is None:
            raise PlanError(f"{member.name} holds no interface with the address {master_addr}, by which it is reached.")
        others = {
            route.device
            for other in cluster.members[1:]
            if (route := network.route(other.name)) is not None and route.device and not route.local
        }
        strays = sorted(other for other in others if other != device)
        link = Link(device, f"{device} holds {master_addr}, the address that the other hosts reach")
        if strays:
            return link, (
                f"{member.name}: answers to other hosts leave by {', '.join(strays)} although they arrive at {device}",
            )
        return link, ()
    route = network.route(cluster.master_name) or network.route(master_addr)
    if route is None or not route.device:
        reason = route.error if route and route.error else "no route was found"
        raise PlanError(f"{member.name} has no way to {master_addr}: {reason}. Check its network and its /etc/hosts.")
    link = Link(route.device, f"the route to {master_addr} leaves by {route.device}")
    owner = _holder(network, route.source) if route.source else None
    if owner and owner != route.device:
        return link, (f"{member.name}: packets to {master_addr} leave by {route.device} with an address of {owner}",)
    return link, ()


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
