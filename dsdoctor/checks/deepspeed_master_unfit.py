"""DeepSpeed's own launcher would take an address for the master that the other hosts do not reach."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.addresses import job_links, link_local, overlap, subnet
from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.lacking import lacking
from dsdoctor.cluster import Cluster
from dsdoctor.facts import Address, FactUnavailable, Interface, NetworkFacts
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped


@check(severity=Severity.WARNING, since="0.1")
def deepspeed_master_unfit(cluster: Cluster, context: JobContext | None) -> Iterator[Finding | Skipped]:
    """The first address that the first host lists is not one that the other hosts are in a network with.

    ## Why it matters
    Without --master_addr DeepSpeed's launcher takes the first word of `hostname -I` of the first host: the first
    address of its first interface, be it Docker's bridge, a VPN or the management network. The ranks of the other hosts
    then connect to it in vain, up to half an hour.

    ## How to fix it
    Give --master_addr to deepspeed. `dsdoctor launch` gives the address by which the other hosts reach the first one.

    ## Source
    launcher/runner.py of DeepSpeed 0.19.8; hostname(1).
    """
    if len(cluster) < 2 or (context is not None and context.planned) or cluster.master.facts is None:
        return
    yield from lacking(Cluster(cluster.members[:1]), deepspeed_master_unfit, "network", "packages")
    master = cluster.master
    links = job_links(cluster)
    try:
        installed = cluster.master.facts.packages.version("deepspeed")
        first = _first(cluster.master.facts.network)
    except FactUnavailable:
        return
    if installed is None or first is None or master.name not in links:
        return
    interface, address = first
    right = links[master.name].address.address
    own = subnet(address)
    others = [subnet(link.address) for name, link in links.items() if name != master.name]
    if address.address == right or (own and others and all(other and overlap(own, other) for other in others)):
        return
    yield deepspeed_master_unfit.finding(
        f"without --master_addr DeepSpeed's launcher takes {address.address} ({interface.name}) for the master; the "
        f"other hosts reach it by {right}",
        hosts=[master.name],
        evidence=[Evidence(text=f"the first of `hostname -I` is {address.address}", source=master.name)],
        fix=[Fix(f"Add --master_addr {right} to deepspeed's arguments, or start the job with dsdoctor launch")],
    )


def _first(network: NetworkFacts) -> tuple[Interface, Address] | None:
    """What `hostname -I` prints first: IPv4 before IPv6, interfaces in the kernel's order, without loopback."""
    running = [item for item in network.interfaces if item.up and not item.loopback]
    for family in ("inet", "inet6"):
        for interface in running:
            for address in interface.addresses:
                if address.family == family and not (family == "inet6" and link_local(address.address)):
                    return interface, address
    return None
