"""A firewall is switched on, and nobody has tried whether it lets the hosts through."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from dsdoctor.addresses import job_links
from dsdoctor.checks.engine import check
from dsdoctor.checks.lacking import lacking
from dsdoctor.checks.remedy import as_root
from dsdoctor.cluster import Cluster, Member
from dsdoctor.facts import FactUnavailable
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped


@check(severity=Severity.INFO, since="0.1")
def firewall_active(cluster: Cluster) -> Iterator[Finding | Skipped]:
    """A firewall (firewalld, ufw) is active on a host, and the ways between the hosts were not tried.

    ## Why it matters
    The rules can be read by root only. RHEL and CentOS let ssh through and nothing else: ssh works, the probe works,
    and the ranks wait for each other until a timeout. Between the hosts of a job all ports must be open, since NCCL and
    gloo use those that the kernel gives them.

    ## How to fix it
    Try it: `dsdoctor check --network` opens the very connections that a job would. Where it fails: let the other hosts'
    addresses through.

    ## Source
    firewalld among the processes, ENABLED=yes in /etc/ufw/ufw.conf; NCCL's user guide, "IP Network Interfaces". Rules
    of nftables alone, of clouds and of switches are not seen by this; --network finds all of them.
    """
    if len(cluster) < 2:
        return
    yield from lacking(cluster, firewall_active, "network")
    links = job_links(cluster)
    for member in cluster.examined:
        if member.facts is None or "peers" in member.facts.snapshot.sections:
            continue  # tried: peer-unreachable tells
        try:
            active = member.facts.network.firewalls
        except FactUnavailable:
            continue
        for name in active:
            others = [shlex.quote(link.address.address) for other, link in links.items() if other != member.name]
            yield firewall_active.finding(
                f"{name} is active; whether it lets the other hosts' ranks through is not known, --network tries it",
                hosts=[member.name],
                evidence=[Evidence(text=f"{name} is active", source=member.name)],
                fix=[Fix(f"Where it does not: let the other hosts through ({name})", _commands(member, name, others))],
            )


def _commands(member: Member, name: str, others: list[str]) -> tuple[str, ...]:
    host = member.facts
    if host is None or not others:
        return ()
    if name == "ufw":
        return tuple(as_root(host, member.entry, f"ufw allow from {other}") for other in others[:8])
    allow = [f"firewall-cmd --permanent --zone=trusted --add-source={other}" for other in others[:8]]
    return tuple(as_root(host, member.entry, command) for command in (*allow, "firewall-cmd --reload"))
