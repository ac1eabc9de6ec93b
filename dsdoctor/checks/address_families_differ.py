"""The hosts' interfaces for the job have no kind of address in common."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.addresses import JobLink, job_links, link_local, network_of
from dsdoctor.checks.engine import check
from dsdoctor.checks.lacking import lacking
from dsdoctor.checks.nccl_use import all_use_nccl
from dsdoctor.cluster import Cluster
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped


@check(severity=Severity.ERROR, since="0.1")
def address_families_differ(cluster: Cluster) -> Iterator[Finding | Skipped]:
    """The job's interface has IPv4 on one host and IPv6 alone on another, or a name leads to a link-local address.

    ## Why it matters
    NCCL and gloo take an interface's first address, IPv4 where there is one. A host that has IPv6 alone cannot connect
    to an IPv4 address, nor the other way round. A link-local address (fe80::) is worth nothing to another host without
    the name of *its own* interface behind it, which nobody passes on.

    ## How to fix it
    Give all hosts an address of one family on the job's interfaces. Where all have a global IPv6 address:
    NCCL_SOCKET_FAMILY=AF_INET6 on all.

    ## Source
    NVIDIA/nccl, src/misc/socket.cc; RFC 4007 for the zones of link-local addresses.
    """
    if len(cluster) < 2:
        return
    yield from lacking(cluster, address_families_differ, "network")
    yield from _useless_names(cluster)
    links = job_links(cluster)
    if len(links) < 2 or not all_use_nccl(cluster):
        return
    without = [name for name, link in links.items() if not _has(link, 4)]
    if not without or len(without) == len(links):
        return
    both = all(_has(link, 6) for link in links.values())
    with_ipv4 = [name for name in links if name not in without]
    yield address_families_differ.finding(
        f"the job's interface has no IPv4 address on {', '.join(without)}, and has one on {', '.join(with_ipv4)}; NCCL "
        "takes IPv4 where it is, and the hosts cannot connect to each other",
        hosts=list(links),
        evidence=[
            Evidence(
                text=f"{link.interface.name}: {', '.join(address.address for address in link.interface.addresses)}",
                source=name,
            )
            for name, link in links.items()
        ],
        fix=[
            Fix("Have NCCL take IPv6 on all hosts", env={"NCCL_SOCKET_FAMILY": "AF_INET6"})
            if both
            else Fix("Give all hosts an address of one family on the job's interfaces")
        ],
    )


def _useless_names(cluster: Cluster) -> Iterator[Finding]:
    """Names of the hostfile that lead to link-local IPv6 addresses and nowhere else."""
    names = {cluster.master_name, *(member.name for member in cluster)}
    seen: dict[str, dict[str, tuple[str, ...]]] = {}
    for member in cluster.examined:
        network = network_of(member)
        for name, found in network.resolves.items() if network is not None else ():
            # The quick question first: a thousand hosts know a thousand names each.
            if found and ":" in found[0] and name in names and name != member.name and all(map(_useless, found)):
                seen.setdefault(name, {})[member.name] = found
    for name, hosts in seen.items():
        yield address_families_differ.finding(
            f"{name} resolves to a link-local address alone, which leads nowhere without an interface behind it",
            severity=Severity.ERROR if name == cluster.master_name else Severity.WARNING,
            hosts=list(hosts),
            evidence=[Evidence(f"{name} resolves to {', '.join(found)}", host) for host, found in hosts.items()],
            fix=[Fix(f"Give {name} an address of the hosts' network in /etc/hosts of every host")],
        )


def _useless(address: str) -> bool:
    return ":" in address and link_local(address)


def _has(link: JobLink, version: int) -> bool:
    """Whether the interface has an address of the family that leads beyond its own link."""
    held = [address.address for address in link.interface.addresses]
    return any((":" in one) is (version == 6) and (version == 4 or not link_local(one)) for one in held)
