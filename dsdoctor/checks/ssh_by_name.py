"""A name of the hostfile means different machines on different hosts."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping

from dsdoctor.addresses import is_loopback
from dsdoctor.checks.engine import check
from dsdoctor.checks.names import disagree, is_address, networks, views
from dsdoctor.checks.remedy import on_host
from dsdoctor.cluster import Cluster
from dsdoctor.facts import FactUnavailable, NetworkFacts
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped


@check(severity=Severity.ERROR, since="0.1")
def ssh_by_name(cluster: Cluster) -> Iterator[Finding | Skipped]:
    """A name of the hostfile does not lead every host to the same machine.

    ## Why it matters
    After a host was renamed or got another address, one /etc/hosts is changed and another forgotten. The ranks there
    connect to the wrong machine, or to none: `store->get('0') got error: Connection reset by peer`, or a wait for
    the store until its timeout. That ssh itself works by these names, from this machine, is what unreachable-host
    looks at.

    ## How to fix it
    Make /etc/hosts (or the DNS) the same on all hosts, or write addresses into the hostfile.

    ## Source
    torch.distributed's TCPStore resolves MASTER_ADDR on every host by itself.
    """
    if len(cluster) < 2:
        return
    for member in cluster.examined:
        try:
            _ = member.facts.network if member.facts else None
        except FactUnavailable as missing:
            yield ssh_by_name.skipped([member.name], str(missing))
    known = networks(cluster)
    for name in dict.fromkeys([cluster.master_name, *(member.name for member in cluster)]):
        if not is_address(name):
            yield from _judge(cluster, known, name)


def _judge(cluster: Cluster, known: Mapping[str, NetworkFacts], name: str) -> Iterator[Finding]:
    is_master = name == cluster.master_name
    # A host may take its own name for what it likes: 127.0.1.1 is usual, and only the master's matters (for
    # master-resolves-to-loopback). A name that no host resolves is an alias of ssh's own config: it does no harm,
    # unless it is the master's, which every host must find.
    seen = views(known, name)
    seen.pop(name, None)
    # Of 1,000 hosts that were asked for 1,000 names nearly all say the same: each answer is looked at once.
    inward = {addresses for addresses in set(seen.values()) if addresses and all(map(is_loopback, addresses))}
    blind = [host for host, addresses in seen.items() if not addresses]
    selfish = [host for host, addresses in seen.items() if addresses in inward]
    real = {host: addresses for host, addresses in seen.items() if addresses and addresses not in inward}
    said = []
    if blind and (is_master or real):
        said.append((f"{name} has no address on this host; it is wanted on every host", blind))
    if selfish and not is_master:
        said.append((f"{name} resolves to a loopback address on this host, which is the host itself", selfish))
    if disagree(real.values()):
        told = "; ".join(f"{', '.join(addresses)} on {host}" for host, addresses in real.items())
        said.append((f"{name} means different machines: {told}; one address everywhere is wanted", list(real)))
    for message, hosts in said:
        yield ssh_by_name.finding(
            message,
            severity=Severity.ERROR if is_master else Severity.WARNING,
            hosts=hosts,
            evidence=[
                Evidence(text=f"{name} resolves to {', '.join(addresses) or 'nothing'}", source=host)
                for host, addresses in seen.items()
            ],
            fix=[
                Fix(
                    "Give the name one address in /etc/hosts of every host (or in the DNS); see what each says now",
                    tuple(
                        on_host(member.entry, f"getent ahosts {shlex.quote(name)}")
                        for member in cluster
                        if member.name in hosts
                    ),
                )
            ],
        )
