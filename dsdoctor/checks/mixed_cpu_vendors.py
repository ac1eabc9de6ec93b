"""Intel and AMD hosts in one job, and an NCCL that lets each choose its own way."""

from __future__ import annotations

from collections.abc import Iterator

from packaging.version import Version

from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.lacking import lacking
from dsdoctor.checks.nccl_use import all_use_nccl, nccl_version
from dsdoctor.checks.rank_settings import setting
from dsdoctor.cluster import Cluster, Member
from dsdoctor.facts import FactUnavailable
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped

# The network's overhead is told by the processor's maker from 2.18.1 on; since 2.22.3 the ranks agree on one first.
_FROM, _UNTIL = Version("2.18.1"), Version("2.22.3")


@check(severity=Severity.WARNING, since="0.1")
def mixed_cpu_vendors(cluster: Cluster, context: JobContext | None) -> Iterator[Finding | Skipped]:
    """Hosts with Intel and with AMD processors are in one job, and NCCL is one of those that choose by the maker.

    ## Why it matters
    NCCL 2.18 to 2.21 (torch 2.1 to 2.6) weighs algorithms and protocols with an overhead that depends on the maker of
    the host's own processor. For some sizes of messages the Intel hosts then walk a ring and the AMD hosts a tree, or
    use another protocol: the collective hangs, with all GPUs at 100 %, and only for those sizes.

    ## How to fix it
    NCCL_NET_OVERHEAD=1000 on all hosts makes them agree; or a torch with NCCL 2.22 or newer (2.7 and on).

    ## Source
    nccl#1136; NVIDIA/nccl, src/graph/tuning.cc (getNetOverhead) of v2.18.1 to v2.21.5, src/init.cc of v2.22.3.
    """
    if len(cluster) < 2 or not all_use_nccl(cluster):
        return
    yield from lacking(cluster, mixed_cpu_vendors, "cpu", "environment")
    makers: dict[str, list[str]] = {}
    overheads: set[str | None] = set()
    for member in cluster.examined:
        try:
            maker, overhead = _maker(member), _overhead(member, context)
        except FactUnavailable:
            continue
        version = nccl_version(member.facts)
        if maker and version is not None and _FROM <= version < _UNTIL:
            makers.setdefault(maker, []).append(member.name)
            overheads.add(overhead)
    if len(makers) < 2 or (len(overheads) == 1 and None not in overheads):
        return
    told = "; ".join(f"{maker} on {', '.join(names[:4])}" for maker, names in makers.items())
    yield mixed_cpu_vendors.finding(
        f"the hosts have processors of two makers ({told}), and this NCCL chooses algorithms by the maker: some "
        "collectives hang",
        hosts=[name for names in makers.values() for name in names],
        evidence=[
            Evidence(text=f"{member.facts.cpu.model}, NCCL {nccl_version(member.facts)}", source=member.name)
            for member in cluster.examined
            if member.facts is not None and any(member.name in names for names in makers.values())
        ],
        fix=[Fix("Have all hosts reckon alike, by env: of the job", env={"NCCL_NET_OVERHEAD": "1000"})],
    )


def _maker(member: Member) -> str | None:
    model = member.facts.cpu.model if member.facts is not None else ""
    return next((maker for maker in ("Intel", "AMD") if maker in model), None)


def _overhead(member: Member, context: JobContext | None) -> str | None:
    got = setting("NCCL_NET_OVERHEAD", member.facts, member.entry, context) if member.facts is not None else None
    return got.value if got is not None else None
