"""Left to itself, NCCL takes an interface by which the other hosts cannot be reached."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from dsdoctor.addresses import JobLink, Subnet, job_links, subnets
from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.ib_use import used_ports
from dsdoctor.checks.ifname import automatic
from dsdoctor.checks.interfaces import only_link_local, private_bridge, tunnel
from dsdoctor.checks.nccl_use import nccl_version, uses_nccl
from dsdoctor.checks.rank_settings import setting
from dsdoctor.cluster import Cluster, Member
from dsdoctor.facts import FactUnavailable, HostFacts, Interface, NetworkFacts
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped


@check(severity=Severity.WARNING, since="0.1")
def wrong_automatic_interface(cluster: Cluster, context: JobContext | None) -> Iterator[Finding | Skipped]:
    """NCCL_SOCKET_IFNAME is not set, and what NCCL then takes on this host includes a bridge, a VPN or the like.

    ## Why it matters
    NCCL meets the other ranks at its first interface and sends data over all of them. It leaves docker* and lo out and
    nothing else that a host has inside: br-…, tun0, tailscale0, before 2.28 virbr0 even while it is down. An interface
    that tells no speed counts as 10 Gbit/s, more than a real 1 Gbit/s one. The other hosts then try to connect to
    172.18.0.1, which is their own bridge: `Connection refused`, or a hang with no message.

    ## How to fix it
    Name the interface on this host, in /etc/nccl.conf or for the job. `dsdoctor launch` does it for each host.

    ## Source
    NVIDIA/nccl, src/misc/socket.cc (ncclFindInterfaces), src/transport/net_socket.cc (speed), src/bootstrap.cc; tried
    with the libraries of 2.18.1, 2.27.7 and 2.28.9; horovod#584, horovod#636 and nccl#286 for what it looks like.
    """
    if len(cluster) < 2:
        return
    links = job_links(cluster)
    holders = Counter(net for link in links.values() for net in set(subnets(link.interface)))
    for member in cluster.examined:
        try:
            yield from _on_host(member, links, holders, context)
        except FactUnavailable as missing:
            yield wrong_automatic_interface.skipped([member.name], str(missing))


def _on_host(
    member: Member, links: dict[str, JobLink], holders: Counter[Subnet], context: JobContext | None
) -> Iterator[Finding]:
    host = member.facts
    if host is None or not uses_nccl(host):
        return
    named = setting("NCCL_SOCKET_IFNAME", host, member.entry, context)
    link = links.get(member.name)
    if link is None or (named is not None and len(named.value) > 1):
        return
    taken = automatic(host.network, nccl_version(host))
    if used_ports(member, context):
        taken = taken[:1]  # data goes over InfiniBand; the ranks meet at the first interface all the same
    own = set(subnets(link.interface))
    bad = {
        item.name: reason
        for item in taken
        if item.name != link.interface.name
        and (reason := _reason(host.network, item)) is not None
        and not any(holders[net] > (net in own) for net in subnets(item))
    }
    if bad:
        yield _finding(host, member, link, taken, bad)


def _reason(network: NetworkFacts, interface: Interface) -> str | None:
    """Why other hosts are not reached by an interface; None where they may be."""
    if private_bridge(network, interface):
        return "a bridge inside this host"
    if tunnel(interface):
        return "a tunnel"
    if only_link_local(interface):
        return "with a link-local address alone"
    return None


def _finding(
    host: HostFacts, member: Member, link: JobLink, taken: tuple[Interface, ...], bad: dict[str, str]
) -> Finding:
    told = ", ".join(f"{name} ({reason})" for name, reason in list(bad.items())[:4])
    told += f" and {len(bad) - 4} more" if len(bad) > 4 else ""
    first = taken[0].name in bad
    what = "the ranks would meet at it" if first else "data would go over it, too"
    certain = first and private_bridge(host.network, taken[0])  # where the ranks cannot even meet, nothing works
    down = [item.name for item in taken if item.name in bad and not item.up]
    name = link.interface.name
    return wrong_automatic_interface.finding(
        f"NCCL_SOCKET_IFNAME is not set, and NCCL takes {told}; {what}, and the other hosts reach this one by {name}",
        hosts=[member.name],
        severity=Severity.ERROR if certain else None,
        evidence=[
            Evidence(
                text="NCCL takes "
                + ", ".join(f"{item.name} ({item.addresses[0].address})" for item in taken)
                + (f"; {', '.join(down)} is down, which it does not look at" if down else ""),
                source=host.name,
            )
        ],
        fix=[
            Fix(
                f"Name the interface on {member.name}, in its /etc/nccl.conf, or start the job with dsdoctor launch",
                env={"NCCL_SOCKET_IFNAME": f"={name}"},
            )
        ],
    )
