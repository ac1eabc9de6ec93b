"""Stand-ins for names and network addresses: the same one for the same thing, and what holds between things kept."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from itertools import chain

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# RFC 5737's three networks first; RFC 2544's for more or larger ones; the reserved 240/4 when even these do not do.
# RFC 3849 and RFC 9637 for IPv6.
_RANGES = {
    4: ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "198.18.0.0/15", "240.0.0.0/4"),
    6: ("2001:db8::/32", "3fff::/20"),
}
_LINK_LOCAL: dict[int, Network] = {4: ip_network("169.254.0.0/16"), 6: ip_network("fe80::/10")}
_USUAL_SIZE = {4: 1 << 8, 6: 1 << 64}  # a network of this size or larger gets this size, unless it needs more


_ADDRESS_LIKE = re.compile(r"[\d.*/]*[.*/][\d.*/]*|[0-9a-f:.%]*:.*")  # 10.20.*, 10.0.0.0/8, fe80::1%eth0
_NOBODY = {"", "root", "nobody", "localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback"}


class Names:
    """Numbered placeholders: host1, host2 ..., user1 ..., in the order in which the names are met. Case is ignored."""

    def __init__(self) -> None:
        self._placeholders: dict[str, str] = {}
        self._numbers: dict[str, dict[str, int]] = {}

    def users(self, names: Iterable[str]) -> None:
        """Give users a placeholder; root and nobody are nobody in particular."""
        for low in map(str.lower, names):
            if low not in _NOBODY and "***" not in low:
                self._placeholders.setdefault(low, f"user{self.number('user', low)}")

    def hosts(self, names: Iterable[str]) -> None:
        """Give hosts a placeholder; a full name brings its first word and its domain with it."""
        for name in names:
            low = name.lower().rstrip(".")
            if low in _NOBODY or low in self._placeholders or "***" in low or _ADDRESS_LIKE.fullmatch(low):
                continue
            short, _, domain = low.partition(".")
            if not domain or not short:
                self._placeholders[low] = f"host{self.number('host', low)}"
                continue
            if short not in self._placeholders:
                self._placeholders[short] = f"host{self.number('host', short)}"
            self._placeholders[low] = f"{self._placeholders[short]}.example.com"
            if "." in domain:
                self._placeholders.setdefault(domain, "example.com")

    def get(self, name: str) -> str | None:
        """The placeholder of a name, or None for a word that is nobody's name."""
        return self._placeholders.get(name.lower())

    def inside_texts(self) -> list[str]:
        """The names to look for inside texts, the longest first; "7" or "a" would be found everywhere."""
        fit = [name for name in self._placeholders if len(name) > 1 and not name.isdecimal()]
        return sorted(fit, key=len, reverse=True)

    def number(self, kind: str, thing: str) -> int:
        """The number of a thing among those of its kind, from 1."""
        numbers = self._numbers.setdefault(kind, {})
        return numbers.setdefault(thing, len(numbers) + 1)

    def numbered(self, kind: str) -> tuple[str, ...]:
        """The things of a kind that have a number."""
        return tuple(self._numbers.get(kind, ()))


def stays(address: Address) -> bool:
    """Whether an address says nothing about its owner and keeps its meaning only as it is: 127.0.1.1, 0.0.0.0, ::1."""
    everyone = address.version == 4 and int(address) == 0xFFFFFFFF
    return address.is_loopback or address.is_unspecified or address.is_multicast or everyone


@dataclass
class _Node:
    """A known network, the networks and addresses in it, and the block that stands for it."""

    network: Network
    children: list[_Node] = field(default_factory=list)
    direct: list[Address] = field(default_factory=list)
    base: int = 0
    size: int = 0

    @property
    def fixed(self) -> bool:
        """Link-local networks stay where they are: their kind is a fact."""
        return self.network.is_link_local

    def measure(self) -> int:
        """The block's size, a power of two: room for the children's blocks, the addresses, and first and last."""
        ends = 0 if self.network.num_addresses <= 2 else 2
        needed = sum(child.measure() for child in self.children) + len(self.direct) + ends
        usual = min(self.network.num_addresses, _USUAL_SIZE[self.network.version])
        self.size = max(usual, 1 << max(0, needed - 1).bit_length())
        if self.fixed:
            self.size = self.network.num_addresses
        return self.size

    def place(self, base: int) -> None:
        """Put the block at `base`, the largest child first, so that each lies on a multiple of its size."""
        self.base = base
        for child in sorted(self.children, key=lambda child: -child.size):
            child.place(base)
            base += child.size


class AddressPlan:
    """Stand-ins of addresses and networks: equal for equal ones, and in one network exactly where the real ones are.

    The plan covers the addresses and networks that it is made from. A network of many addresses becomes a /24 (IPv4) or
    /64 (IPv6) unless it holds more; the mask follows.
    """

    def __init__(self, addresses: Iterable[Address], networks: Iterable[Network]) -> None:
        self._addresses: dict[Address, Address] = {}
        self._networks: dict[Network, Network] = {}
        known = list(dict.fromkeys(networks))
        wanted = [address for address in dict.fromkeys(addresses) if not stays(address)]
        for version in (4, 6):
            self._plan(
                version,
                [network for network in known if network.version == version and _useful(network)],
                [address for address in wanted if address.version == version],
            )

    def address(self, address: Address) -> Address:
        """The stand-in of an address of the plan; itself where it says nothing about its owner."""
        return self._addresses.get(address, address)

    def network(self, network: Network) -> Network | None:
        """The stand-in of a network of the plan, or None."""
        return self._networks.get(network)

    def _plan(self, version: int, networks: list[Network], addresses: list[Address]) -> None:
        local = [_LINK_LOCAL[version]] if any(address.is_link_local for address in addresses) else []
        nodes = {network: _Node(network) for network in dict.fromkeys(chain(networks, local))}
        strays = _Node(ip_network("0.0.0.0/0" if version == 4 else "::/0"))
        by_prefix = sorted(nodes, key=lambda network: -network.prefixlen)
        roots = []
        for network, node in nodes.items():
            around = [other for other in by_prefix if other.prefixlen < network.prefixlen and network.subnet_of(other)]  # type: ignore[arg-type]
            if around:
                nodes[around[0]].children.append(node)
            else:
                roots.append(node)
        for address in addresses:
            holder = next((nodes[network] for network in by_prefix if address in network), strays)
            holder.direct.append(address)
        self._place(version, [*roots, strays])
        for node in (*nodes.values(), strays):
            self._number(node)

    def _place(self, version: int, roots: list[_Node]) -> None:
        """Give each outermost network its block, in the order of their appearance."""
        free = [[int(block[0]), int(block[-1]) + 1] for block in map(ip_network, _RANGES[version])]
        for root in roots:
            root.measure()
            if root.fixed:
                root.place(int(root.network.network_address))
                continue
            for space in free:
                start = -(-space[0] // root.size) * root.size
                if start + root.size <= space[1]:
                    root.place(start)
                    space[0] = start + root.size
                    break
            else:
                raise ValueError("more addresses than the documentation ranges hold")

    def _number(self, node: _Node) -> None:
        """Number the addresses that lie in no smaller known network, behind the blocks of those."""
        kind = IPv4Address if node.network.version == 4 else IPv6Address
        bits = node.network.max_prefixlen
        self._networks[node.network] = ip_network((node.base, bits - (node.size.bit_length() - 1)))
        first = node.base + sum(child.size for child in node.children) + (1 if node.network.num_addresses > 2 else 0)
        for offset, address in enumerate(node.direct):
            self._addresses[address] = kind(first + offset)


def _useful(network: Network) -> bool:
    """Whether a network tells who is whose neighbour: not one address, nor half the world, nor one of those that stay.

    What lies around the link-local networks is left out: their addresses keep their kind, and cannot be moved with it.
    """
    widest = 8 if network.version == 4 else 10
    around = not network.is_link_local and network.overlaps(_LINK_LOCAL[network.version])
    usual = widest <= network.prefixlen < network.max_prefixlen
    return usual and not around and not network.is_loopback and not network.is_multicast
