"""GPUs of one name may draw different power."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.engine import check
from dsdoctor.checks.gpus_by_name import Place, by_name, listed, spread
from dsdoctor.checks.remedy import as_root
from dsdoctor.cluster import Cluster
from dsdoctor.facts import Gpu
from dsdoctor.report.model import Finding, Fix, Severity, Skipped

_TOLERANCE = 0.05  # makers set their boards a little apart


@check(severity=Severity.INFO, since="0.1")
def gpu_power_limits_differ(cluster: Cluster) -> Iterator[Finding | Skipped]:
    """GPUs of the job have one name and different power limits.

    ## Why it matters
    The card with the lower limit runs at lower clocks under load, and every step waits for it. Limits are set for one
    card in an experiment, or lost at a reboot on one host and not on the other.

    ## How to fix it
    The same limit everywhere. If all have a lower one than the default, somebody meant it, and nothing is said.

    ## Source
    NVML's enforced power limit.
    """
    unknown: list[tuple[str, str]] = []
    for name, places in by_name(cluster, unknown).items():
        limits = spread(places, lambda gpu: gpu.power_limit_w, _TOLERANCE)
        if limits is None:
            continue
        yield gpu_power_limits_differ.finding(
            f"{name}: the job's cards may draw {limits[0]:.0f} to {limits[1]:.0f} W, the same is wanted of all",
            hosts=tuple(dict.fromkeys(host for host, _ in places)),
            evidence=listed(places, _shown),
            fix=[_fix(cluster, places, limits[1])],
        )
    for host, reason in unknown:
        yield gpu_power_limits_differ.skipped([host], reason)


def _shown(gpu: Gpu) -> str:
    default = "" if gpu.power_limit_default_w is None else f", {gpu.power_limit_default_w:.0f} W by default"
    return "limit not known" if gpu.power_limit_w is None else f"limit {gpu.power_limit_w:.0f} W{default}"


def _fix(cluster: Cluster, places: list[Place], most: float) -> Fix:
    entries = {member.name: member for member in cluster.examined}
    commands = [
        as_root(member.facts, member.entry, f"nvidia-smi -i {gpu.index} -pl {most:.0f}")
        for host, gpu in places
        if (gpu.power_limit_w or most) < most * (1 - _TOLERANCE) and (member := entries[host]).facts is not None
    ]
    return Fix("Raise the lower ones, if power supply and cooling allow it", tuple(commands))
