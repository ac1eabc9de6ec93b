"""The kernel asked about the network as `ip` asks it: rtnetlink(7). No process is started for it."""

from __future__ import annotations

import os
import struct

from .plain import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

# Source: linux/netlink.h, linux/rtnetlink.h, linux/fib_rules.h.
REQUEST, DUMP = 0x1, 0x300
ERROR, DONE = 2, 3
NEW_ADDRESS, ASK_ADDRESSES = 20, 22
NEW_ROUTE, ASK_ROUTE = 24, 26
NEW_RULE, ASK_RULES = 32, 34
SOCKETS, ASK_SOCKETS = 4, 20  # NETLINK_SOCK_DIAG and its SOCK_DIAG_BY_FAMILY: linux/inet_diag.h, sock_diag(7)
SECONDS = 2  # the kernel answers at once; what stands in its place in a sandbox may not
SCOPES = {0: "global", 200: "site", 253: "link", 254: "host", 255: "nowhere"}
UNASKED = (OSError, struct.error, ValueError, IndexError)  # the kernel has no such line, or answers in another form
ROUTE_TYPES = {2: "local", 6: "blackhole", 7: "unreachable", 8: "prohibit", 9: "throw"}


class Netlink:
    """A line to the kernel. Raises OSError where it has none, and for what it refuses."""

    def __init__(self, protocol: int = 0) -> None:
        self.channel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        # The system's own limit, in seconds and microseconds: with Python's, each message would be waited for first.
        for limit in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            self.channel.setsockopt(socket.SOL_SOCKET, limit, struct.pack("@ll", SECONDS, 0))
        self.number = 0

    def __enter__(self) -> Netlink:
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.close()

    def ask(self, kind: int, flags: int, body: bytes) -> Iterator[tuple[int, bytes]]:
        """Put one question; gives the kind and the body of each message of the answer."""
        self.number += 1
        self.channel.send(struct.pack("=IHHII", 16 + len(body), kind, REQUEST | flags, self.number, 0) + body)
        unfinished = True
        while unfinished:
            data, place = self.channel.recv(1 << 16), 0
            while place + 16 <= len(data):
                length, answer, more, number, _ = struct.unpack_from("=IHHII", data, place)
                message = data[place + 16 : place + length]
                place += max(16, (length + 3) & ~3)
                if number != self.number:
                    continue  # of an earlier question
                if answer == ERROR or (answer == DONE and len(message) >= 4):
                    (code,) = struct.unpack_from("=i", message)
                    if code < 0:
                        raise OSError(-code, os.strerror(-code))
                if answer in (ERROR, DONE):
                    return
                yield answer, message
                unfinished = unfinished and bool(more & 2)  # NLM_F_MULTI: the end is told


def listening_ports() -> list[int]:
    """The TCP ports that are listened at. Raises OSError and struct.error where the kernel cannot be asked for them.

    /proc/net/tcp says it too, but for that the kernel goes through its whole table of connections, empty or not: 2 ms.
    """
    ports = set()
    with Netlink(SOCKETS) as kernel:
        for family in (socket.AF_INET, socket.AF_INET6):
            # struct inet_diag_req_v2: family, protocol, two unused, the states wanted, a socket's addresses (none).
            question = struct.pack("=BBBBI", family, socket.IPPROTO_TCP, 0, 0, 1 << 10) + bytes(48)
            for _, message in kernel.ask(ASK_SOCKETS, DUMP, question):
                (port,) = struct.unpack_from("!H", message, 4)
                ports.add(port)
    return sorted(ports)


def attributes(message: bytes, place: int) -> dict[int, bytes]:
    """The attributes of a message from a place on, by their number."""
    found = {}
    while place + 4 <= len(message):
        length, kind = struct.unpack_from("=HH", message, place)
        if length < 4:
            break
        found[kind & 0x3FFF] = message[place + 4 : place + length]
        place += (length + 3) & ~3
    return found


def address_text(raw: bytes) -> str:
    """An address of either family as text."""
    return socket.inet_ntop(socket.AF_INET if len(raw) == 4 else socket.AF_INET6, raw)
