"""A name in NCCL_SOCKET_IFNAME or NCCL_IB_HCA takes more than the one interface or adapter it names."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.ib_use import active_ports
from dsdoctor.checks.nccl_use import uses_nccl
from dsdoctor.checks.rank_settings import setting
from dsdoctor.cluster import Cluster, HostEntry
from dsdoctor.facts import HostFacts
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped


@check(severity=Severity.WARNING, since="0.1")
def interface_prefix_trap(
    host: HostFacts, entry: HostEntry, cluster: Cluster, context: JobContext | None
) -> Iterator[Finding | Skipped]:
    """A variable names one interface or adapter and, being a prefix, takes others with it.

    ## Why it matters
    NCCL compares beginnings: `bond0` also takes bond0.2093, the VLAN that leads nowhere, and `mlx5_1` takes mlx5_10 to
    mlx5_19. Data goes over all that match; ranks on other hosts wait at the one that is right.

    ## How to fix it
    Put one = before the list: names are then compared as a whole.

    ## Source
    NCCL's user guide (NCCL_SOCKET_IFNAME; NCCL_IB_HCA: "always recommended to add ="), src/misc/utils.cc; nccl-tests#9.
    """
    if len(cluster) < 2 or not uses_nccl(host):
        return
    for variable in ("NCCL_SOCKET_IFNAME", "NCCL_IB_HCA"):
        got = setting(variable, host, entry, context)
        if got is None or len(got.value) < 2 or got.value.startswith(("=", "^")):
            continue  # exact; and what is excluded together with others is seldom missed
        if variable == "NCCL_IB_HCA":
            names = sorted({port.device for port in active_ports(host.infiniband)})
        else:
            usable = [item for item in host.network.interfaces if item.up and item.addresses]
            names = [item.name for item in usable]
        caught = _caught(got.value, names)
        if not caught:
            continue
        told = "; ".join(f"{word} also takes {', '.join(others)}" for word, others in caught.items())
        yield interface_prefix_trap.finding(
            f"{variable}={got.value}: {told}",
            evidence=[Evidence(text=f"{variable}={got.value}, from {got.source}", source=host.name)],
            fix=[Fix("Compare the names as a whole, with a = before the list", env={variable: f"={got.value}"})],
        )


def _caught(value: str, names: list[str]) -> dict[str, list[str]]:
    """For each word that is a whole name here, the other names that begin with it and that no word names."""
    words = [word.split(":")[0] for word in value.split(",")]
    return {
        word: others
        for word in words
        if word in names
        and (others := [name for name in names if name != word and name.startswith(word) and name not in words])
    }
