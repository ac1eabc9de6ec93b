"""An InfiniBand port waits for its subnet manager, or is down where the other hosts' is up."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.engine import check
from dsdoctor.checks.lacking import lacking
from dsdoctor.checks.remedy import on_host
from dsdoctor.cluster import Cluster, Member
from dsdoctor.facts import FactUnavailable, IbPort
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped


@check(severity=Severity.WARNING, since="0.1")
def ib_port_down(cluster: Cluster) -> Iterator[Finding | Skipped]:
    """An InfiniBand or RoCE port is linked but not configured, or is down here and active on the other hosts.

    ## Why it matters
    NCCL uses active ports only. A port in state INIT has its cable and no subnet manager on the fabric; a port that is
    down on one host alone makes this host slower than the others, or keeps it off InfiniBand altogether, and the ranks
    then do not agree on a network.

    ## How to fix it
    INIT: start opensm on one host of the fabric, or the switch's own subnet manager. DOWN: the cable, the switch's
    port, and whether the port was switched off.

    ## Source
    /sys/class/infiniband/NAME/ports/N/state and phys_state; InfiniBand Architecture Specification, PortState.
    """
    yield from lacking(cluster, ib_port_down, "infiniband")
    ports = [(member, name, port) for member in cluster.examined for name, port in _ports(member)]
    active: dict[str, list[str]] = {}
    for member, name, port in ports:
        if port.state == "ACTIVE":
            active.setdefault(name, []).append(member.name)
    for member, name, port in ports:
        if port.state in ("INIT", "ARMED") and port.link_layer != "Ethernet":
            message = f"{name} is in state {port.state}: the link is there, and no subnet manager has configured it"
        elif port.state == "DOWN" and (others := [host for host in active.get(name, []) if host != member.name]):
            reason = port.physical_state or "no reason told"
            message = f"{name} is down ({reason}), and active on {', '.join(others[:4])}"
        else:
            continue
        yield ib_port_down.finding(
            message,
            hosts=[member.name],
            evidence=[Evidence(text=f"{name}: {port.state}, {port.physical_state}, {port.rate}", source=member.name)],
            fix=[Fix("Look at the port and at who manages the fabric", (on_host(member.entry, "ibstat; sminfo"),))],
        )


def _ports(member: Member) -> Iterator[tuple[str, IbPort]]:
    try:
        devices = member.facts.infiniband.devices if member.facts is not None else ()
    except FactUnavailable:
        return
    for device in devices:
        for port in device.ports:
            yield f"{device.name}:{port.port}", port
