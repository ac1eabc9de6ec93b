"""NCCL_IB_HCA names adapters that the host does not have, or that are not active."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.ib_use import active_ports, disabled, selected_ports
from dsdoctor.checks.nccl_use import uses_nccl
from dsdoctor.checks.rank_settings import setting
from dsdoctor.cluster import Cluster, HostEntry
from dsdoctor.facts import HostFacts
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped


@check(severity=Severity.ERROR, since="0.1")
def ib_hca_missing(
    host: HostFacts, entry: HostEntry, cluster: Cluster, context: JobContext | None
) -> Iterator[Finding | Skipped]:
    """NCCL_IB_HCA selects no active port on this host, or a word of it selects none.

    ## Why it matters
    Adapters have other names on other hosts (mlx5_0 here, ibp1s0 there). Where the value fits nothing NCCL goes through
    sockets on this host alone, and its ranks cannot connect to those that use InfiniBand; where it fits half, half the
    ports are idle.

    ## How to fix it
    Name the host's own active ports, in its /etc/nccl.conf; `dsdoctor launch` does it for each host.

    ## Source
    NVIDIA/nccl, src/transport/net_ib/init.cc and src/misc/utils.cc (matchIfList).
    """
    if len(cluster) < 2 or not uses_nccl(host):
        return
    got = setting("NCCL_IB_HCA", host, entry, context)
    if got is None or not got.value.strip("^=") or disabled(host, entry, context):
        return
    active = active_ports(host.infiniband)
    if not active:
        return
    there = ", ".join(map(str, active))
    wanted = "=" + ",".join(map(str, active))
    selected = selected_ports(host.infiniband, got.value)
    if not selected:
        message = f"NCCL_IB_HCA={got.value} selects none of this host's active ports ({there}), so NCCL takes sockets"
        severity = None
    else:
        lost = _lost(host, got.value)
        if not lost:
            return
        message = f"NCCL_IB_HCA={got.value}: no active port of this host is called {' or '.join(lost)} ({there} are)"
        severity = Severity.WARNING
    yield ib_hca_missing.finding(
        message,
        severity=severity,
        evidence=[Evidence(text=f"NCCL_IB_HCA={got.value}, from {got.source}", source=host.name)],
        fix=[Fix(f"Name the active ports of {host.name}, or unset it", env={"NCCL_IB_HCA": wanted})],
    )


def _lost(host: HostFacts, value: str) -> list[str]:
    """The words of a list of adapters that select nothing; what is excluded need not be there."""
    if value.startswith("^"):
        return []
    sign = "=" if value.startswith("=") else ""
    words = [word for word in value.removeprefix("=").split(",") if word]
    return [word for word in words if not selected_ports(host.infiniband, sign + word)]
