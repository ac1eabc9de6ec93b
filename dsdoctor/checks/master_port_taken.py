"""The port at which the ranks would meet is taken on the master, or may not be used."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.lacking import lacking
from dsdoctor.checks.rank_settings import setting
from dsdoctor.checks.remedy import on_host
from dsdoctor.cluster import Cluster, Member
from dsdoctor.facts import FactUnavailable, HostFacts, NetworkFacts
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped

DEFAULT = 29500  # torchrun's and DeepSpeed's


@check(severity=Severity.WARNING, since="0.1")
def master_port_taken(cluster: Cluster, context: JobContext | None) -> Iterator[Finding | Skipped]:
    """The master's port, MASTER_PORT or 29500, is listened on already, is none, or is one of the kernel's own choosing.

    ## Why it matters
    The first rank cannot open the port: `EADDRINUSE`, and the ranks of the other hosts wait for it up to half an hour.
    Mostly it is a run that was not ended. A number drawn out of the ephemeral range works until the kernel has given it
    to some connection.

    ## How to fix it
    End what holds it, or take another port below the ephemeral range. `dsdoctor launch` takes a free one.

    ## Source
    /proc/net/tcp and tcp6, net.ipv4.ip_local_port_range and ip_local_reserved_ports of the first host.
    """
    yield from lacking(Cluster(cluster.members[:1]), master_port_taken, "network", "environment")
    master = cluster.master
    if master.facts is None or (context is not None and context.planned):
        return
    try:
        network = master.facts.network
        got = setting("MASTER_PORT", master.facts, master.entry, context)
    except FactUnavailable:
        return
    if got is None:
        if DEFAULT in network.listening:
            yield _taken(master, DEFAULT, "the default of torchrun and DeepSpeed", Severity.WARNING)
        return
    said = f"MASTER_PORT={got.value}, from {got.source}"
    port = int(got.value) if got.value.strip().isdecimal() and len(got.value) < 8 else 0
    if not 0 < port < 65536:
        yield _finding(master, f"MASTER_PORT={got.value} is no port: 1 to 65535", Severity.ERROR, said)
    elif port in network.listening:
        yield _taken(master, port, said, Severity.ERROR)
    elif port < 1024 and not _root(master.facts):
        yield _finding(master, f"MASTER_PORT={port}: ports below 1024 are for root", Severity.ERROR, said)
    elif _ephemeral(port, network):
        low, high = network.port_range or (0, 0)
        message = f"MASTER_PORT={port} is out of the range that the kernel gives to connections ({low} to {high})"
        yield _finding(master, f"{message}: now and then it is taken", Severity.INFO, said)


def _ephemeral(port: int, network: NetworkFacts) -> bool:
    """Whether the kernel may give the port to an outgoing connection."""
    if network.port_range is None or not network.port_range[0] <= port <= network.port_range[1]:
        return False
    for part in network.reserved_ports.split(","):
        low, _, high = part.strip().partition("-")
        if low.isdecimal() and len(low) < 8 and int(low) <= port <= (int(high) if high[:7].isdecimal() else int(low)):
            return False
    return True


def _root(host: HostFacts) -> bool:
    try:
        return host.os.uid == 0
    except FactUnavailable:
        return False


def _taken(master: Member, port: int, said: str, severity: Severity) -> Finding:
    return _finding(
        master,
        f"port {port} of the first host, where the ranks would meet, is listened on already",
        severity,
        said,
        Fix("See what holds it, and end it", (on_host(master.entry, f"ss -ltnp 'sport = :{port}'"),)),
    )


def _finding(master: Member, message: str, severity: Severity, said: str, *first: Fix) -> Finding:
    return master_port_taken.finding(
        message,
        severity=severity,
        hosts=[master.name],
        evidence=[Evidence(text=said, source=master.name)],
        fix=[*first, Fix("Take another port, below the ephemeral range (--master_port 29501)")],
    )
