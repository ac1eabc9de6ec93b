"""The addresses of the interfaces."""

from __future__ import annotations

import os
import socket
import struct

from .files import SBIN, ProbeError, at, number, read_or, which
from .programs import run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def addresses() -> dict[str, list[dict[str, Any]]]:
    """Every interface's addresses: `ip -o addr`, which every iproute2 prints alike, else the kernel asked directly."""
    program = which("ip", SBIN)
    if program is not None:
        try:
            code, output, _ = run([program, "-o", "addr", "show"])
            if code == 0:
                return parse_addresses(output)
        except ProbeError:
            pass  # the kernel can be asked without it
    return kernel_addresses()


def parse_addresses(text: str) -> dict[str, list[dict[str, Any]]]:
    """The lines of `ip -o addr`: `4: eth0    inet 192.0.2.2/24 brd 192.0.2.255 scope global eth0 ...`."""
    found: dict[str, list[dict[str, Any]]] = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) < 4 or words[2] not in ("inet", "inet6"):
            continue
        address, _, prefix = words[3].partition("/")
        if words[4:5] == ["peer"]:
            prefix = words[5].partition("/")[2]  # point to point: `inet 10.8.0.6 peer 10.8.0.5/32`
        scope = words[words.index("scope") + 1] if "scope" in words[:-1] else ""
        whole = 32 if words[2] == "inet" else 128
        held = number(prefix)
        row = {"address": address, "prefix": whole if held is None else held, "family": words[2], "scope": scope}
        found.setdefault(words[1].partition("@")[0], []).append(row)
    return found


def kernel_addresses() -> dict[str, list[dict[str, Any]]]:
    """The same by SIOCGIFCONF and SIOCGIFNETMASK (netdevice(7)) and /proc/net/if_inet6, for hosts without `ip`."""
    import array
    import fcntl

    found: dict[str, list[dict[str, Any]]] = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
        table = array.array("B", bytes(40 * 1024))
        try:
            request = struct.pack("iP", len(table), table.buffer_info()[0])
            size = struct.unpack("iP", fcntl.ioctl(channel.fileno(), 0x8912, request))[0]
            for offset in range(0, size, 40):  # struct ifreq: 16 bytes name, struct sockaddr
                entry = table[offset : offset + 40].tobytes()
                label = entry[:16].split(b"\0")[0]
                mask = fcntl.ioctl(channel.fileno(), 0x891B, entry)[20:24]
                address = socket.inet_ntoa(entry[20:24])
                scope = "host" if address.startswith("127.") else "global"
                prefix = bin(struct.unpack("!I", mask)[0]).count("1")
                row = {"address": address, "prefix": prefix, "family": "inet", "scope": scope}
                found.setdefault(os.fsdecode(label).partition(":")[0], []).append(row)
        except OSError:
            pass  # no IPv4
    scopes = {0x00: "global", 0x10: "host", 0x20: "link", 0x40: "site"}
    for line in read_or(at("/proc/net/if_inet6")).splitlines():
        words = line.split()
        if len(words) == 6:
            address = socket.inet_ntop(socket.AF_INET6, bytes(bytearray.fromhex(words[0])))
            scope = scopes.get(int(words[3], 16) & 0xF0, "")
            row = {"address": address, "prefix": int(words[2], 16), "family": "inet6", "scope": scope}
            found.setdefault(words[5], []).append(row)
    return found
