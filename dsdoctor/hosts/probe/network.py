"""The interfaces, and what stands around them."""

from __future__ import annotations

import os

from .addresses import addresses
from .files import SBIN, at, entries, number, read_or, unique, which
from .names import NAME_SECONDS, resolve
from .netlink import UNASKED, listening_ports
from .plain import socket
from .processes import running
from .question import Ask, section
from .routes import policy_rules, routes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


@section
def fact_network(ask: Ask) -> dict[str, Any]:
    """Source: if_nameindex(3), /sys/class/net, rtnetlink(7), getaddrinfo(3), /proc/net, /proc/sys/net."""
    resolves, errors = resolve(unique(ask.targets + [socket.gethostname()]), min(NAME_SECONDS, ask.left() / 2))
    found = addresses()
    ports = read_or(at("/proc/sys/net/ipv4/ip_local_port_range")).split()
    return {
        "interfaces": [interface(name, found.get(name, [])) for name in interface_names()],
        "default_device": default_device(),
        "resolves": resolves,
        "resolve_errors": errors,
        "routes": routes(ask.targets, resolves, errors),
        "port_range": [int(ports[0]), int(ports[1])] if len(ports) == 2 else None,
        "policy_rules": policy_rules(),
        "reserved_ports": read_or(at("/proc/sys/net/ipv4/ip_local_reserved_ports")),
        "listening": ports_in_use(),
        "firewalls": firewalls(),
    }


def firewalls() -> list[str]:
    """The firewall programs that are switched on. Their rules only root may read."""
    lines = read_or(at("/etc/ufw/ufw.conf")).lower().replace(" ", "").replace("\t", "").splitlines()
    ufw = any(line.startswith(("enabled=yes", 'enabled="yes', "enabled='yes")) for line in lines)
    firewalld = which("firewalld", SBIN) and running("firewalld")
    return ["firewalld"] * bool(firewalld) + ["ufw"] * bool(ufw and which("ufw", SBIN))


def interface_names() -> list[str]:
    """The interfaces of this network namespace; /sys/class/net may show another's."""
    try:
        return [name for _, name in socket.if_nameindex()]
    except (OSError, AttributeError):
        return entries(at("/sys/class/net"))


def interface(name: str, held: list[dict[str, Any]]) -> dict[str, Any]:
    """One interface with its addresses. Source: /sys/class/net/NAME."""
    base = at("/sys/class/net/%s/" % name)
    flags = int(read_or(base + "flags") or "0", 16)
    state, carrier = read_or(base + "operstate"), read_or(base + "carrier")  # carrier cannot be read while it is down
    speed = number(read_or(base + "speed"))
    return {
        "name": name,
        "up": bool(flags & 1) and (carrier == "1" if carrier else state in ("up", "unknown")),
        "state": state,
        "mtu": number(read_or(base + "mtu")),
        "speed_mbit": speed if speed and 0 < speed < 2**32 - 1 else None,  # unknown is -1, or 2**32 - 1
        "addresses": held,
        "virtual": "/devices/virtual/" in os.path.realpath(base),
        "loopback": bool(flags & 8),
        "mac": read_or(base + "address"),
        "kind": interface_kind(base),
        "master": os.path.basename(os.path.realpath(base + "master")) if os.path.islink(base + "master") else None,
        "duplex": read_or(base + "duplex").replace("unknown", "") or None,  # an error while it is down
        "rp_filter": reverse_path(name),
    }


def interface_kind(base: str) -> str:
    """bridge, bond, vlan, wlan, wireguard ..., or tun; empty for an ordinary interface."""
    for line in read_or(base + "uevent").splitlines():
        name, _, kind = line.partition("=")
        if name == "DEVTYPE" and kind:
            return kind
    return "tun" if os.path.exists(base + "tun_flags") else ""


def reverse_path(name: str) -> int | None:
    """The rp_filter in force on an interface: the larger of its own and that of `all` (ip-sysctl.rst)."""
    settings = [number(read_or(at("/proc/sys/net/ipv4/conf/%s/rp_filter" % of))) for of in ("all", name)]
    return max([setting for setting in settings if setting is not None], default=None)


def default_device() -> str | None:
    """The interface of the default route with the lowest metric. Source: /proc/net/route, /proc/net/ipv6_route."""
    ways: list[tuple[int, str]] = []
    for line in read_or(at("/proc/net/route")).splitlines()[1:]:
        words = line.split()
        if len(words) >= 8 and words[1] == "00000000" and words[7] == "00000000" and int(words[3], 16) & 1:
            ways.append((int(words[6]), words[0]))
    if not ways:
        for line in read_or(at("/proc/net/ipv6_route")).splitlines():
            words = line.split()
            if len(words) == 10 and words[0] == "0" * 32 and words[1] == "00" and words[9] != "lo":
                ways.append((int(words[5], 16), words[9]))
    return min(ways)[1] if ways else None


def ports_in_use() -> list[int]:
    """The TCP ports that are listened at, as the kernel says when it is asked, else as /proc/net/tcp has them."""
    try:
        return listening_ports()
    except UNASKED:
        return listening("\n".join(read_or(at("/proc/net/" + name), limit=8 << 20) for name in ("tcp", "tcp6")))


def listening(text: str) -> list[int]:
    """The ports in state LISTEN (0A) of /proc/net/tcp and tcp6."""
    ports = set()
    for line in text.splitlines():
        words = line.split()
        if len(words) > 3 and words[3] == "0A":
            ports.add(int(words[1].rpartition(":")[2], 16))
    return sorted(ports)
