"""A fast way between GPUs or hosts is switched off although it works."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.env_values import reads_as
from dsdoctor.checks.ib_use import active_ports, disabled
from dsdoctor.checks.job_gpus import job_gpus, pair_value
from dsdoctor.checks.nccl_use import uses_nccl
from dsdoctor.checks.rank_settings import setting
from dsdoctor.cluster import Cluster, HostEntry, Member
from dsdoctor.facts import FactUnavailable, HostFacts
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped


@check(severity=Severity.WARNING, since="0.1")
def transport_disabled(
    host: HostFacts, entry: HostEntry, cluster: Cluster, context: JobContext | None
) -> Iterator[Finding | Skipped]:
    """NVLink or InfiniBand is switched off by a variable on hosts where it works.

    ## Why it matters
    NCCL_P2P_DISABLE=1 and NCCL_IB_DISABLE=1 are the first advice for every hang, and stay in ~/.bashrc and job files
    after it is over, or are carried from the one host that needs them to all. Data then goes through the host's memory
    instead of NVLink, or over Ethernet instead of InfiniBand, at a tenth of the speed, and nothing says so.

    ## How to fix it
    Unset it on the hosts that do not need it. `dsdoctor launch` sets both only where they are needed.

    ## Source
    NVML's answers for peer-to-peer and NVLink, /sys/class/infiniband; NCCL's user guide: these variables "should not be
    used in production nor retained in scripts".
    """
    if not uses_nccl(host):
        return
    yield from _nvlink(host, entry, context)
    if len(cluster) > 1 and all(_infiniband(member) for member in cluster):
        off = disabled(host, entry, context)
        if off:
            ports = ", ".join(map(str, active_ports(host.infiniband)[:8]))
            yield _finding(host, off, f"every host has active InfiniBand ports (here {ports}), and they are idle")


def _nvlink(host: HostFacts, entry: HostEntry, context: JobContext | None) -> Iterator[Finding]:
    gpus = job_gpus(host, entry)
    got = setting("NCCL_P2P_DISABLE", host, entry, context)
    level = setting("NCCL_P2P_LEVEL", host, entry, context)
    if got is not None and reads_as(got.value) == 1:
        said = f"NCCL_P2P_DISABLE={got.value}"
    elif level is not None and level.value == "LOC":
        said = "NCCL_P2P_LEVEL=LOC"
    else:
        return
    linked = len(gpus) > 1 and all(gpu.nvlinks for gpu in gpus)
    facts = host.gpu
    if linked and all(pair_value(facts, facts.p2p_read, one, other) == 0 for one, other in combinations(gpus, 2)):
        yield _finding(host, said, f"the {len(gpus)} GPUs reach each other by NVLink, and NCCL does without")


def _infiniband(member: Member) -> bool:
    """Whether a host has an active port of InfiniBand proper. Raises FactUnavailable when that is not known."""
    if member.facts is None:
        raise FactUnavailable("infiniband", f"{member.name} was not examined")
    return any(not port.roce for port in active_ports(member.facts.infiniband))


def _finding(host: HostFacts, said: str, effect: str) -> Finding:
    return transport_disabled.finding(
        f"{said}: {effect}",
        evidence=[Evidence(text=said, source=host.name)],
        fix=[Fix(f"Unset {said.partition('=')[0]} where it is not needed")],
    )
