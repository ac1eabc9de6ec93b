"""Hosts of the job call themselves by one name."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.lacking import lacking
from dsdoctor.checks.nccl_use import all_use_nccl
from dsdoctor.checks.rank_settings import setting
from dsdoctor.checks.remedy import as_root
from dsdoctor.cluster import Cluster
from dsdoctor.facts import FactUnavailable
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped


@check(severity=Severity.WARNING, since="0.1")
def hostname_shared(cluster: Cluster, context: JobContext | None) -> Iterator[Finding | Skipped]:
    """Several hosts have one hostname, or NCCL_HOSTID gives them one identity.

    ## Why it matters
    Machines that were copied from one image keep its name, or are all called localhost. NCCL's and torch's messages
    then cannot be told apart, files named after the host (%h) are written by several, and a name that every host takes
    for itself leads nowhere. NCCL_HOSTID replaces what NCCL tells hosts apart by: with one value on two hosts it takes
    their GPUs for those of one machine, and stops or hangs.

    ## How to fix it
    Give each host a name of its own, and unset NCCL_HOSTID where it is not made for each host.

    ## Source
    NVIDIA/nccl, src/misc/utils.cc (getHostHash: hostname and boot id, or NCCL_HOSTID); hostname(7).
    """
    if len(cluster) < 2:
        return
    yield from lacking(cluster, hostname_shared, "os")
    names: dict[str, list[str]] = {}
    for member in cluster.examined:
        try:
            names.setdefault(member.facts.os.hostname if member.facts else "", []).append(member.name)
        except FactUnavailable:
            continue
    members = {member.name: member for member in cluster}
    for hostname, hosts in names.items():
        if len(hosts) > 1 and hostname:
            commands = [
                as_root(facts, members[name].entry, "hostnamectl set-hostname NAME")
                for name in hosts[1:]
                if (facts := members[name].facts) is not None
            ]
            yield hostname_shared.finding(
                f"{', '.join(hosts)} all call themselves {hostname}; each host wants a name of its own",
                hosts=hosts,
                evidence=[Evidence(text=f"hostname: {hostname}", source=name) for name in hosts],
                fix=[Fix("Give each a name of its own", tuple(commands))],
            )
    if all_use_nccl(cluster):
        yield from _one_identity(cluster, context)


def _one_identity(cluster: Cluster, context: JobContext | None) -> Iterator[Finding]:
    """NCCL_HOSTID with one value on several hosts."""
    values: dict[str, list[str]] = {}
    for member in cluster.examined:
        try:
            got = setting("NCCL_HOSTID", member.facts, member.entry, context) if member.facts else None
        except FactUnavailable:
            continue
        if got is not None:
            values.setdefault(got.value, []).append(member.name)
    for value, hosts in values.items():
        if len(hosts) > 1:
            yield hostname_shared.finding(
                f"NCCL_HOSTID={value} on {', '.join(hosts)}: NCCL takes their GPUs for those of one machine",
                severity=Severity.ERROR,
                hosts=hosts,
                evidence=[Evidence(text=f"NCCL_HOSTID={value}", source=name) for name in hosts],
                fix=[Fix("Unset NCCL_HOSTID, or give each host a value of its own")],
            )
