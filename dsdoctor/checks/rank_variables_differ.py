"""Variables that all ranks must agree on differ between the hosts."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.nccl_use import all_use_nccl
from dsdoctor.checks.rank_settings import EQUAL_FOR_NCCL, EQUAL_FOR_TORCH, TORCH_DEBUG, Setting, settings
from dsdoctor.cluster import Cluster
from dsdoctor.facts import FactUnavailable
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped


@check(severity=Severity.ERROR, since="0.1")
def rank_variables_differ(cluster: Cluster, context: JobContext | None) -> Iterator[Finding | Skipped]:
    """A variable that every rank must have alike has different values on the hosts.

    ## Why it matters
    NCCL_SOCKET_IFNAME may differ from host to host, and often must. NCCL_ALGO, NCCL_PROTO, NCCL_BUFFSIZE and the like
    may not: each rank picks its way through a collective by itself, and ranks that pick differently wait for each other
    for ever, or take the wrong bytes. With TORCH_DISTRIBUTED_DEBUG=DETAIL on one host only, its ranks start collectives
    that the others never join.

    ## How to fix it
    Set it for the whole job, in env: of the job file, or nowhere.

    ## Source
    NVIDIA/nccl, src/graph/tuning.cc; NVIDIA's maintainer in nccl#626: "ensure the environment variables between all
    ranks are set consistently". torch's ProcessGroupWrapper for DETAIL.
    """
    if len(cluster) < 2:
        return
    found: dict[str, dict[str, Setting]] = {}
    for member in cluster.examined:
        try:
            found[member.name] = settings(member.facts, member.entry, context) if member.facts else {}
        except FactUnavailable as missing:
            yield rank_variables_differ.skipped([member.name], str(missing))
    if len(found) < 2:
        return
    for name in (*(EQUAL_FOR_NCCL if all_use_nccl(cluster) else ()), *EQUAL_FOR_TORCH):
        got = {host: values[name].value if name in values else None for host, values in found.items()}
        if len(set(got.values())) > 1:
            yield _finding(name, got)
    got = {host: values[TORCH_DEBUG].value if TORCH_DEBUG in values else None for host, values in found.items()}
    if len({(value or "").upper() == "DETAIL" for value in got.values()}) > 1:
        yield _finding(TORCH_DEBUG, got)


def _finding(name: str, got: dict[str, str | None]) -> Finding:
    told = "; ".join(
        f"{'not set' if value is None else value or 'empty'} on {', '.join(host for host in got if got[host] == value)}"
        for value in dict.fromkeys(got.values())
    )
    return rank_variables_differ.finding(
        f"{name} differs between the hosts ({told}); all ranks must have it alike",
        hosts=list(got),
        evidence=[
            Evidence(text=f"{name} is not set" if value is None else f"{name}={value}", source=host)
            for host, value in got.items()
        ],
        fix=[Fix(f"Set {name} in env: of the job file, so that all hosts have it alike, or unset it everywhere")],
    )
