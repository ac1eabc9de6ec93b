"""The way to each of the other hosts."""

from __future__ import annotations

import re
import socket

from .addresses import kernel_addresses
from .files import SBIN, ProbeError, unique, which
from .programs import run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

BATCH = 500  # addresses in one `ip route get`: question and answer each fit into a pipe, so that neither side waits


def routes(targets: list[str], resolves: dict[str, list[str]], errors: dict[str, str]) -> list[dict[str, Any]]:
    """The way to each target, by its first IPv4 address or else its first. Source: `ip route get`."""
    chosen: dict[str, str] = {}
    for target in targets:
        known = [address.partition("%")[0] for address in resolves.get(target, [])]
        chosen[target] = next((address for address in known if ":" not in address), known[0] if known else "")
    wanted = unique(address for address in chosen.values() if address)
    ways: dict[str, dict[str, Any]] = {}
    for begin in range(0, len(wanted), BATCH):
        ways.update(ip_routes(wanted[begin : begin + BATCH]))
    found = []
    for target in targets:
        address = chosen[target]
        if address:
            way = ways.get(address) or connected_route(address)
        else:
            way = {"error": errors.get(target, "the name has no address")}
        found.append(dict(way, target=target, address=address))
    return found


def ip_routes(wanted: list[str]) -> dict[str, dict[str, Any]]:
    """`ip route get` of all addresses in one run; an address missing from the answer could not be asked."""
    program = which("ip", SBIN)
    if program is None:
        return {}
    batch = "".join("route get %s\n" % address for address in wanted)
    try:
        _, output, errors = run([program, "-o", "-force", "-batch", "-"], text=batch)
    except ProbeError:
        return {}
    return parse_routes(wanted, output, errors)


def parse_routes(wanted: list[str], output: str, errors: str) -> dict[str, dict[str, Any]]:
    """The routes in `ip -o route get` lines, and the refusals: `RTNETLINK answers: ... ` then `Command failed -:LINE`.

    A line is `[local|unreachable|...] ADDRESS [from ADDRESS] [via [inet6] ADDRESS] dev NAME [src ADDRESS] ...`.
    """
    found: dict[str, dict[str, Any]] = {}
    kinds = ("local", "broadcast", "multicast", "anycast", "unicast", "unreachable", "prohibit", "blackhole", "throw")
    for line in output.splitlines():
        words = line.split("\\")[0].split()
        kind = words.pop(0) if words and words[0] in kinds else "unicast"
        if not words:
            continue
        after = dict(zip(words, words[1:]))
        via = after.get("via")
        if via == "inet6":
            via = after.get("inet6")
        way = {"device": after.get("dev"), "source": after.get("src"), "via": via, "local": kind == "local"}
        if kind in kinds[5:]:
            way["error"] = "the route is of type %s" % kind
        found[words[0]] = way
    reason = ""
    for line in errors.splitlines():
        failed = re.match(r"Command failed -:(\d+)", line)
        if failed is None:
            reason = line.partition("answers: ")[2] or reason
        elif reason and 0 < int(failed.group(1)) <= len(wanted):
            found[wanted[int(failed.group(1)) - 1]] = {"error": reason}
            reason = ""
    return found


def connected_route(address: str) -> dict[str, Any]:
    """The way as a datagram socket's connect(2) shows it, for hosts without `ip`: no packet is sent."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as channel:
            channel.connect((address, 9))
            source = str(channel.getsockname()[0])
    except OSError as failure:
        return {"error": failure.strerror or str(failure)}
    owners = [name for name, held in kernel_addresses().items() if any(row["address"] == source for row in held)]
    return {"device": owners[0] if owners else None, "source": source, "local": source == address}
