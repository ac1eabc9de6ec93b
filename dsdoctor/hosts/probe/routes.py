"""The way to each of the other hosts, and the rules that choose among the kernel's tables of ways."""

from __future__ import annotations

import errno
import struct

from .addresses import kernel_addresses
from .netlink import (
    ASK_ROUTE,
    ASK_RULES,
    DUMP,
    NEW_ROUTE,
    NEW_RULE,
    ROUTE_TYPES,
    UNASKED,
    Netlink,
    address_text,
    attributes,
)
from .plain import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def routes(targets: list[str], resolves: dict[str, list[str]], errors: dict[str, str]) -> list[dict[str, Any]]:
    """The way to each target, by its first IPv4 address or else its first. Source: RTM_GETROUTE, as `ip route get`."""
    chosen: dict[str, str] = {}
    for target in targets:
        known = [address.partition("%")[0] for address in resolves.get(target, [])]
        chosen[target] = next((address for address in known if ":" not in address), known[0] if known else "")
    ways: dict[str, dict[str, Any]] = {}
    try:
        with Netlink() as kernel:
            names: dict[int, str | None] = {}
            for address in chosen.values():
                if address and address not in ways:
                    ways[address] = route(kernel, address, names)
    except UNASKED:
        pass  # the rest is asked in another way
    found = []
    for target in targets:
        address = chosen[target]
        if address:
            way = ways.get(address) or connected_route(address)
        else:
            way = {"error": errors.get(target, "the name has no address")}
        found.append(dict(way, target=target, address=address))
    return found


def route(kernel: Netlink, address: str, names: dict[int, str | None]) -> dict[str, Any]:
    """The way to an address; `names` are interfaces asked for before.

    Raises OSError for what is no address, and where the kernel cannot be asked at all.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    raw = socket.inet_pton(family, address)
    # struct rtmsg with RTM_F_LOOKUP_TABLE, then RTA_DST.
    question = struct.pack("=BBBBBBBBI", family, 8 * len(raw), 0, 0, 0, 0, 0, 0, 0x1000)
    question += struct.pack("=HH", 4 + len(raw), 1) + raw
    try:
        answers = [message for kind, message in kernel.ask(ASK_ROUTE, 0, question) if kind == NEW_ROUTE]
    except OSError as failure:
        if failure.errno in (None, errno.EPERM, errno.EOPNOTSUPP):
            raise
        return {"error": failure.strerror}  # there is no way
    return described_route(answers[0], names) if answers else {"error": "the kernel gave no answer"}


def described_route(message: bytes, names: dict[int, str | None]) -> dict[str, Any]:
    """The body of an RTM_NEWROUTE message as it is reported."""
    held = attributes(message, 12)
    kind = ROUTE_TYPES.get(message[7], "")
    device = struct.unpack("=I", held[4])[0] if 4 in held else 0  # RTA_OIF
    if device not in names:
        names[device] = interface_name(device)
    via = held.get(5) or held.get(18, b"")[2:]  # RTA_GATEWAY; RTA_VIA, of another family
    way = {
        "device": names[device],
        "source": address_text(held[7]) if 7 in held else None,  # RTA_PREFSRC
        "via": address_text(via) if via else None,
        "local": kind == "local",
    }
    return dict(way, error="the route is of type %s" % kind) if kind not in ("", "local") else way


def interface_name(number: int) -> str | None:
    """The name of an interface, or None."""
    try:
        return socket.if_indextoname(number)
    except (OSError, OverflowError):
        return None


def policy_rules() -> int | None:
    """The rules for IPv4 beyond those that every Linux has; None where the kernel cannot be asked."""
    try:
        with Netlink() as kernel:
            asked = kernel.ask(ASK_RULES, DUMP, struct.pack("=BBBBBBBBI", socket.AF_INET, *[0] * 8))
            rules = [message for kind, message in asked if kind == NEW_RULE]
    except UNASKED:
        return None
    return sum(not usual_rule(rule) for rule in rules) if rules else None


def usual_rule(message: bytes) -> bool:
    """Whether an RTM_NEWRULE message says no more than `from all lookup local|main|default`.

    struct fib_rule_hdr: family, lengths of destination and source, TOS, table, two unused, action, flags; then
    attributes: 6 priority, 13 and 14 what it suppresses (-1: nothing), 15 table, 21 protocol.
    """
    _, to, source, tos, table, _, _, action, flags = struct.unpack_from("=BBBBBBBBI", message)
    held = attributes(message, 12)
    if 15 in held:
        (table,) = struct.unpack("=I", held[15])
    plain = all(kind in (6, 15, 21) or (kind in (13, 14) and raw == b"\xff" * 4) for kind, raw in held.items())
    return plain and not (to or source or tos or flags) and action == 1 and table in (253, 254, 255)


def connected_route(address: str) -> dict[str, Any]:
    """The way as a datagram socket's connect(2) shows it, for hosts without netlink: no packet is sent."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        channel = socket.socket(family, socket.SOCK_DGRAM)
        try:
            channel.connect((address, 9))
            source = str(channel.getsockname()[0])
        finally:
            channel.close()
    except OSError as failure:
        return {"error": failure.strerror or str(failure)}
    owners = [name for name, held in kernel_addresses().items() if any(row["address"] == source for row in held)]
    return {"device": owners[0] if owners else None, "source": source, "local": source == address}
