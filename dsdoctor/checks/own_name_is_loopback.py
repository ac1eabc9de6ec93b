"""A host takes its own name for 127.0.1.1, and gloo hands that address to the other hosts."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.addresses import is_loopback, job_link
from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.rank_settings import setting
from dsdoctor.cluster import Cluster, HostEntry
from dsdoctor.facts import HostFacts
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped


@check(severity=Severity.WARNING, since="0.1")
def own_name_is_loopback(
    host: HostFacts, entry: HostEntry, cluster: Cluster, context: JobContext | None
) -> Iterator[Finding | Skipped]:
    """The host's own name resolves to a loopback address, and GLOO_SOCKET_IFNAME is not set.

    ## Why it matters
    Debian and Ubuntu write `127.0.1.1 name` into /etc/hosts. gloo looks its host's name up to find the address that it
    gives to the other ranks; they then try to connect to themselves: `Gloo connectFullMesh failed … Connection
    refused, remote=[127.0.1.1]`, while this host waits without a word. torch takes gloo for everything on CPUs, and
    beside NCCL where no backend is named. NCCL itself does not look at names.

    ## How to fix it
    Set GLOO_SOCKET_IFNAME on each host to the interface that leads to the others (`dsdoctor launch` does), or give the
    name its network address in /etc/hosts.

    ## Source
    torch 2.13 with gloo on two hosts, tried; Debian Reference, "The hostname resolution".
    """
    name = host.os.hostname
    if len(cluster) < 2 or name == cluster.master_name == cluster.master.name:
        return  # the master's name is for master-resolves-to-loopback
    known = host.network.resolves.get(name, ())
    if not known or not all(map(is_loopback, known)) or setting("GLOO_SOCKET_IFNAME", host, entry, context):
        return
    member = next((one for one in cluster if one.name == entry.name), None)
    link = job_link(member, cluster) if member is not None else None
    env = {"GLOO_SOCKET_IFNAME": link.interface.name} if link is not None else {}
    yield own_name_is_loopback.finding(
        f"its own name resolves to {', '.join(known)} alone, which gloo gives to the other hosts as its address",
        severity=Severity.INFO if host.gpu.gpus else None,  # NCCL does the work then
        evidence=[Evidence(text=f"{name} resolves to {', '.join(known)}", source=host.name)],
        fix=[Fix(f"Set GLOO_SOCKET_IFNAME on {entry.name}, or give {name} its network address in /etc/hosts", env=env)],
    )
