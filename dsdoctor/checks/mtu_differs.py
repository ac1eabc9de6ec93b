"""The hosts' interfaces for the job send packets of different sizes."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from dsdoctor.addresses import Subnet, job_links, subnet
from dsdoctor.checks.engine import check
from dsdoctor.checks.lacking import lacking
from dsdoctor.checks.remedy import as_root
from dsdoctor.cluster import Cluster
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped


@check(severity=Severity.WARNING, since="0.1")
def mtu_differs(cluster: Cluster) -> Iterator[Finding | Skipped]:
    """The interfaces by which the hosts of one network take part in the job have different MTUs.

    ## Why it matters
    TCP agrees on the smaller size when a connection is made, so that small messages pass; where a switch or a tunnel in
    between does not carry the larger frames, the first large tensor hangs. RoCE does not agree on anything: its queue
    pairs fail.

    ## How to fix it
    The same MTU on all hosts, not larger than what the switch carries (`ping -M do -s 8972 HOST` tries 9000).

    ## Source
    /sys/class/net/NAME/mtu; RFC 879 and RFC 1191 for TCP.
    """
    if len(cluster) < 2:
        return
    yield from lacking(cluster, mtu_differs, "network")
    links = job_links(cluster)
    by_net: dict[Subnet, dict[str, int]] = {}
    for name, link in links.items():
        net = subnet(link.address)
        if net is not None and link.interface.mtu is not None:
            by_net.setdefault(net, {})[name] = link.interface.mtu
    members = {member.name: member for member in cluster.examined}
    for net, seen in by_net.items():
        if len(set(seen.values())) < 2:
            continue
        told = "; ".join(
            f"{mtu} on {', '.join(name for name in seen if seen[name] == mtu)}" for mtu in dict.fromkeys(seen.values())
        )
        least = min(seen.values())
        commands = []
        for name, mtu in seen.items():
            facts = members[name].facts
            if mtu != least and facts is not None:
                change = f"ip link set dev {shlex.quote(links[name].interface.name)} mtu {least}"
                commands.append(as_root(facts, members[name].entry, change))
        advice = "The smallest everywhere, until the next boot (the largest, if the switch carries it)"
        yield mtu_differs.finding(
            f"the hosts' interfaces in {net} have different MTUs ({told}); one is wanted",
            hosts=list(seen),
            evidence=[Evidence(f"{links[name].interface.name}: mtu {mtu}", name) for name, mtu in seen.items()],
            fix=[Fix(advice, tuple(commands))],
        )
