"""What kind of network an interface leads to: another host's, one inside this host, or a tunnel."""

from __future__ import annotations

import re

from dsdoctor.addresses import link_local
from dsdoctor.facts import Interface, NetworkFacts

# Names by which Docker, libvirt, LXC, Podman and Kubernetes call the bridges they make; asked of snapshots that do not
# tell an interface's kind, and of hosts in whose network namespace a bridge's ports are not seen.
_BRIDGES = re.compile(
    r"docker\d|br-[0-9a-f]{12}$|virbr\d|lxcbr\d|lxdbr\d|podman\d|cni\d|cni-|cbr\d|nerdctl\d|vmnet\d|vboxnet\d"
)
_TUNNELS = frozenset({"tun", "wireguard", "ppp", "wwan"})
_TUNNEL_NAMES = re.compile(r"tun\d|wg\d|tailscale\d|zt[0-9a-z]{8}|ppp\d|nebula|utun\d")


def private_bridge(network: NetworkFacts, interface: Interface) -> bool:
    """Whether an interface is a bridge for containers or virtual machines: none of its ports leaves the host."""
    if interface.kind and interface.kind != "bridge":
        return False
    if not interface.kind:
        return interface.virtual and _BRIDGES.match(interface.name) is not None
    ports = [other for other in network.interfaces if other.master == interface.name]
    return not any(_leaves(port) for port in ports) and (bool(ports) or _BRIDGES.match(interface.name) is not None)


def _leaves(port: Interface) -> bool:
    """Whether a bridge's port is a card, or what stands for one."""
    return not port.virtual or port.kind in ("bond", "team", "vlan", "vxlan", "macvlan", "wlan")


def tunnel(interface: Interface) -> bool:
    """Whether an interface is the end of a VPN."""
    return interface.kind in _TUNNELS or (interface.virtual and _TUNNEL_NAMES.match(interface.name) is not None)


def only_link_local(interface: Interface) -> bool:
    """Whether all addresses of an interface are for one link only: nobody gave it one."""
    return bool(interface.addresses) and all(link_local(address.address) for address in interface.addresses)


def told_speed(interface: Interface) -> int | None:
    """The speed of a card in Mbit/s; None for what is no card's.

    A container's end of a cable inside its host says 10 Gbit/s, whatever the machine has time for.
    """
    made_up = interface.virtual and interface.kind not in ("bond", "team", "vlan")
    return None if made_up else interface.speed_mbit
