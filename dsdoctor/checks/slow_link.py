"""A host's interface or InfiniBand port for the job is slower than the others', or has fallen back."""

from __future__ import annotations

import re
import shlex
import statistics
from collections.abc import Iterator

from dsdoctor.addresses import JobLink, job_links, network_of
from dsdoctor.checks.engine import check
from dsdoctor.checks.ib_use import active_ports
from dsdoctor.checks.interfaces import told_speed
from dsdoctor.checks.lacking import lacking
from dsdoctor.checks.remedy import on_host
from dsdoctor.cluster import Cluster, HostEntry, Member
from dsdoctor.facts import FactUnavailable
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped

FALLEN_BACK = 100  # Mbit/s: no card of a training host is made for it
THIN = 1000


@check(severity=Severity.WARNING, since="0.1")
def slow_link(cluster: Cluster) -> Iterator[Finding | Skipped]:
    """The link by which a host takes part is slower than that of the others, at 100 Mbit/s, or at half duplex.

    ## Why it matters
    Every step waits for the slowest link. A bad cable or port lets gigabit Ethernet fall back to 100 Mbit/s, and an
    InfiniBand port to fewer lanes; nothing fails, and the whole job is ten times slower.

    ## How to fix it
    Another cable, another port, autonegotiation on both ends. Where one host really has the slower card: leave it out,
    or exchange less (LoRA, more gradient accumulation).

    ## Source
    /sys/class/net/NAME/speed and duplex, /sys/class/infiniband/NAME/ports/N/rate. --network measures what really gets
    through.
    """
    if len(cluster) < 2:
        return
    yield from lacking(cluster, slow_link, "network")
    links = job_links(cluster)
    entries = {member.name: member.entry for member in cluster}
    speeds = {name: speed for name, link in links.items() if (speed := told_speed(link.interface)) is not None}
    for member in cluster.examined:
        if member.name in links:
            yield from _alone(member.name, entries[member.name], links[member.name])
            yield from _lost(member, links[member.name])
    fine = {name: speed for name, speed in speeds.items() if speed > FALLEN_BACK}
    if len(fine) > 1:
        usual = statistics.median_high(fine.values())
        for name, speed in fine.items():
            if speed * 2 < usual:
                yield _slower(name, entries[name], links[name], speed, usual)
    yield from _ports(cluster)


def _alone(name: str, entry: HostEntry, link: JobLink) -> Iterator[Finding]:
    """What needs no other host to compare with."""
    item = link.interface
    if item.duplex == "half":
        what = f"{item.name} is at half duplex: it cannot send and receive at once"
    elif (speed := told_speed(item)) is not None and speed <= FALLEN_BACK:
        what = f"{item.name} runs at {speed} Mbit/s; a bad cable or port makes gigabit Ethernet fall back so"
    else:
        return
    yield slow_link.finding(what, hosts=[name], evidence=[_seen(name, link)], fix=[_look(entry, link)])


def _lost(member: Member, link: JobLink) -> Iterator[Finding]:
    """A bond of which a part is down."""
    network = network_of(member)
    parts = [item for item in network.interfaces if item.master == link.interface.name] if network else []
    down = [item.name for item in parts if not item.up]
    if link.interface.kind == "bond" and down and len(down) < len(parts):
        carry = f"{len(parts) - len(down)} of {len(parts)} carry it"
        yield slow_link.finding(
            f"{', '.join(down)}, a part of {link.interface.name}, is down; {carry}",
            severity=Severity.INFO,
            hosts=[member.name],
            evidence=[Evidence(f"{item.name}: {'up' if item.up else 'down'}", member.name) for item in parts],
            fix=[_look(member.entry, link)],
        )


def _slower(name: str, entry: HostEntry, link: JobLink, speed: int, usual: int) -> Finding:
    return slow_link.finding(
        f"{link.interface.name} runs at {_rate(speed)}, the other hosts' interfaces at {_rate(usual)}; "
        "every step waits for the slowest",
        severity=None if speed <= THIN else Severity.INFO,
        hosts=[name],
        evidence=[_seen(name, link)],
        fix=[_look(entry, link)],
    )


def _ports(cluster: Cluster) -> Iterator[Finding]:
    """InfiniBand ports that run slower than the ports of the same name on the other hosts."""
    rates: dict[str, dict[str, float]] = {}
    for member in cluster.examined:
        try:
            ports = active_ports(member.facts.infiniband) if member.facts else ()
        except FactUnavailable:
            continue
        for port in ports:
            told = re.match(r"(\d{1,5}(?:\.\d{1,3})?) Gb/sec", port.port.rate)
            if told:
                rates.setdefault(str(port), {})[member.name] = float(told[1])
    for port_name, seen in rates.items():
        usual = statistics.median_high(seen.values())
        for name, rate in seen.items():
            if rate < usual:
                yield slow_link.finding(
                    f"{port_name} runs at {rate:g} Gbit/s, on the other hosts at {usual:g}; every step waits for it",
                    hosts=[name],
                    evidence=[Evidence(text=f"{port_name}: {rate:g} Gb/sec", source=name)],
                    fix=[Fix("Look at the cable and the port on both ends (ibstat, mlxlink)")],
                )


def _seen(name: str, link: JobLink) -> Evidence:
    item = link.interface
    duplex = f", {item.duplex} duplex" if item.duplex else ""
    return Evidence(text=f"{item.name} ({link.address.address}): {item.speed_mbit} Mbit/s{duplex}", source=name)


def _look(entry: HostEntry, link: JobLink) -> Fix:
    command = on_host(entry, f"ethtool {shlex.quote(link.interface.name)}")
    return Fix("Look at what both ends offer, and try another cable", (command,))


def _rate(mbit: int) -> str:
    return f"{mbit / 1000:g} Gbit/s" if mbit >= 1000 else f"{mbit} Mbit/s"
