"""The addresses of the interfaces."""

from __future__ import annotations

import os
import struct

from .files import at, read_or
from .netlink import ASK_ADDRESSES, DUMP, NEW_ADDRESS, SCOPES, UNASKED, Netlink, address_text, attributes
from .plain import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any


def addresses() -> dict[str, list[dict[str, Any]]]:
    """Every interface's addresses: RTM_GETADDR, as `ip addr` asks, else by older ways of the kernel."""
    try:
        with Netlink() as kernel:
            asked = kernel.ask(ASK_ADDRESSES, DUMP, bytes(8))
            messages = [message for kind, message in asked if kind == NEW_ADDRESS]
        return held_by(messages, dict(socket.if_nameindex()))
    except UNASKED:
        return kernel_addresses()


def held_by(messages: list[bytes], names: dict[int, str]) -> dict[str, list[dict[str, Any]]]:
    """RTM_NEWADDR messages by the name of their interface. Raises struct.error for one that is cut off.

    struct ifaddrmsg: family, length of the prefix, flags, scope, index; then attributes: 1 address, the peer's on a
    line from point to point, 2 one's own.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for message in messages:
        family, prefix, _, scope, index = struct.unpack_from("=BBBBI", message)
        held = attributes(message, 8)
        raw = held.get(2) or held.get(1)
        if raw is None or index not in names or family not in (socket.AF_INET, socket.AF_INET6):
            continue
        row = {
            "address": address_text(raw),
            "prefix": prefix,
            "family": "inet" if family == socket.AF_INET else "inet6",
            "scope": SCOPES.get(scope, str(scope)),
        }
        found.setdefault(names[index], []).append(row)
    return found


def kernel_addresses() -> dict[str, list[dict[str, Any]]]:
    """The same by older ways: SIOCGIFCONF and SIOCGIFNETMASK (netdevice(7)), /proc/net/if_inet6."""
    found: dict[str, list[dict[str, Any]]] = {}
    channel = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        for name, address, mask in configured(channel.fileno()):
            scope = "host" if address.startswith("127.") else "global"
            prefix = bin(struct.unpack("!I", mask)[0]).count("1")
            row = {"address": address, "prefix": prefix, "family": "inet", "scope": scope}
            found.setdefault(name, []).append(row)
    except OSError:
        pass  # no IPv4
    finally:
        channel.close()
    scopes = {0x00: "global", 0x10: "host", 0x20: "link", 0x40: "site"}
    for line in read_or(at("/proc/net/if_inet6")).splitlines():
        words = line.split()
        if len(words) == 6:
            address = address_text(bytes(bytearray.fromhex(words[0])))
            scope = scopes.get(int(words[3], 16) & 0xF0, "")
            row = {"address": address, "prefix": int(words[2], 16), "family": "inet6", "scope": scope}
            found.setdefault(words[5], []).append(row)
    return found


def configured(channel: int) -> Iterator[tuple[str, str, bytes]]:
    """Interface, IPv4 address and mask of each entry of the kernel's list. Raises OSError."""
    import array
    import fcntl

    table = array.array("B", bytes(40 * 1024))
    request = struct.pack("iP", len(table), table.buffer_info()[0])
    size = struct.unpack("iP", fcntl.ioctl(channel, 0x8912, request))[0]
    for offset in range(0, size, 40):  # struct ifreq: 16 bytes name, struct sockaddr
        entry = table[offset : offset + 40].tobytes()
        name = os.fsdecode(entry[:16].split(b"\0")[0]).partition(":")[0]
        yield name, socket.inet_ntoa(entry[20:24]), fcntl.ioctl(channel, 0x891B, entry)[20:24]
