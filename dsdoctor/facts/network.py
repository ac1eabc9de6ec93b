"""Interfaces, ways, InfiniBand, and the trial of the ways between hosts."""

from __future__ import annotations

import msgspec


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """An address of an interface."""

    address: str
    prefix: int
    family: str = "inet"  # inet | inet6
    scope: str = ""


class Interface(msgspec.Struct, frozen=True, kw_only=True):
    """A network interface."""

    name: str
    up: bool  # administratively up and with carrier
    state: str = ""  # operstate
    mtu: int | None = None
    speed_mbit: int | None = None
    addresses: tuple[Address, ...] = ()
    virtual: bool = False  # below /sys/devices/virtual
    loopback: bool = False
    mac: str = ""
    kind: str = ""  # bridge, bond, vlan, vxlan, wlan, tun, wireguard ...; empty for an ordinary one
    master: str | None = None  # the bond or bridge that it is a part of
    duplex: str | None = None  # full | half
    rp_filter: int | None = None  # net.ipv4.conf: 0 off, 1 strict, 2 loose; the larger of its own and that of "all"


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """How this host reaches an address: `ip route get`. A name without an address has an empty one and an `error`."""

    target: str  # as asked: a name or an address
    address: str  # what it resolved to
    device: str | None = None
    source: str | None = None
    via: str | None = None
    local: bool = False  # the address is this host's own
    error: str | None = None


class NetworkFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Interfaces, names and routes. `resolves` and `routes` cover the names the probe was asked about."""

    interfaces: tuple[Interface, ...] = ()
    default_device: str | None = None
    resolves: dict[str, tuple[str, ...]] = {}  # name -> addresses, empty when it does not resolve; has the own name too
    resolve_errors: dict[str, str] = {}  # name -> why it has no address
    routes: tuple[Route, ...] = ()
    policy_rules: int | None = None  # rules of `ip rule` beyond the three of every Linux: answers may go by source
    port_range: tuple[int, int] | None = None  # net.ipv4.ip_local_port_range
    reserved_ports: str = ""  # net.ipv4.ip_local_reserved_ports: "29500,30000-30010"
    listening: tuple[int, ...] = ()  # TCP ports somebody listens on
    firewalls: tuple[str, ...] = ()  # programs that are switched on: firewalld, ufw

    def interface(self, name: str) -> Interface | None:
        """The interface of that name, or None."""
        return next((interface for interface in self.interfaces if interface.name == name), None)

    def route(self, target: str) -> Route | None:
        """The route to a name or address that was asked about, or None."""
        return next((route for route in self.routes if target in (route.target, route.address)), None)


class Gid(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of a port's GID table that is not empty. `kind` is "RoCE v2", "IB/RoCE v1", or empty."""

    index: int
    gid: str  # "::ffff:192.0.2.4" for an IPv4 address
    kind: str = ""


class IbPort(msgspec.Struct, frozen=True, kw_only=True):
    """A port of an InfiniBand or RoCE device."""

    port: int
    state: str = ""  # ACTIVE, DOWN, INIT
    physical_state: str = ""
    rate: str = ""
    link_layer: str = ""  # InfiniBand | Ethernet
    gids: tuple[Gid, ...] | None = None  # of the first 32 entries; None: not looked at


class IbDevice(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of /sys/class/infiniband."""

    name: str
    ports: tuple[IbPort, ...] = ()
    net_devices: tuple[str, ...] = ()


class InfinibandFacts(msgspec.Struct, frozen=True, kw_only=True):
    """RDMA devices, and whether GPUDirect's module is loaded."""

    devices: tuple[IbDevice, ...] = ()
    verbs: tuple[str, ...] | None = None  # what programs open: the uverbs entries of /dev/infiniband; None: not told
    peermem_loaded: bool = False
    libibverbs: bool | None = None  # the loader finds libibverbs.so.1, without which NCCL uses sockets


class PeerPort(msgspec.Struct, frozen=True, kw_only=True):
    """One port of another host, tried with a real connection."""

    kind: str  # ephemeral | master
    port: int
    error: str | None = None  # in the words of the system, or who else answered
    seconds: float = 0.0
    round_trip_ms: float | None = None  # median of 32 messages of 64 bytes


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """Another host as seen from this one. Speeds are known to the one host of each pair that measured them."""

    peer: str
    address: str
    ports: tuple[PeerPort, ...] = ()
    error: str | None = None  # why none was tried
    send_mbit: float | None = None
    receive_mbit: float | None = None
    speed_error: str | None = None


class PeerFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What came of `--network`: `address` is the one this host took part with."""

    address: str
    problems: tuple[str, ...] = ()  # a port that could not be listened on
    peers: tuple[Peer, ...] = ()
