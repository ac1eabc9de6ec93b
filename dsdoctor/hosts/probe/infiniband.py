"""InfiniBand and RoCE adapters."""

from __future__ import annotations

import os

from .files import at, entries, number, read_or
from .loader import loadable
from .plain import socket
from .question import Ask, section

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

GIDS = 32  # entries of a GID table that are looked at; adapters have up to 256, and fill the first few


@section
def fact_infiniband(ask: Ask) -> dict[str, Any]:
    """Source: /sys/class/infiniband, /sys/module."""
    base = at("/sys/class/infiniband")
    devices = []
    for name in entries(base):
        ports = []
        for port in entries("%s/%s/ports" % (base, name)):
            folder = "%s/%s/ports/%s/" % (base, name, port)
            if number(port) is None:
                continue
            ports.append(
                {
                    "port": number(port),
                    "state": read_or(folder + "state").rpartition(": ")[2],  # "4: ACTIVE"
                    "physical_state": read_or(folder + "phys_state").rpartition(": ")[2],
                    "rate": read_or(folder + "rate"),
                    "link_layer": read_or(folder + "link_layer"),
                    "gids": gids(folder) if read_or(folder + "link_layer") == "Ethernet" else None,
                }
            )
        devices.append({"name": name, "ports": ports, "net_devices": entries("%s/%s/device/net" % (base, name))})
    peermem = any(os.path.isdir(at("/sys/module/" + name)) for name in ("nvidia_peermem", "nv_peer_mem"))
    verbs = [name for name in entries(at("/dev/infiniband")) if name.startswith("uverbs")]
    return {
        "devices": devices,
        "peermem_loaded": peermem,
        "verbs": verbs,
        "libibverbs": loadable("libibverbs.so.1") if devices else None,
    }


def gids(folder: str) -> list[dict[str, Any]]:
    """The entries of a port's GID table that are not empty; an empty one has no type, and reading that is an error."""
    found = []
    for name in sorted(filter(str.isdigit, entries(folder + "gids")), key=int)[:GIDS]:
        gid = read_or(folder + "gids/" + name)
        if not gid.replace(":", "").strip("0"):
            continue
        kind = read_or(folder + "gid_attrs/types/" + name)
        found.append({"index": int(name), "gid": short_address(gid), "kind": kind})
    return found


def short_address(text: str) -> str:
    """An IPv6 address in its usual form; as it came where it is none."""
    try:
        return socket.inet_ntop(socket.AF_INET6, socket.inet_pton(socket.AF_INET6, text))
    except (OSError, ValueError):
        return text
