"""The driver lets go of the GPUs whenever nothing uses them."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.engine import check
from dsdoctor.checks.job_gpus import container, job_gpus, named
from dsdoctor.checks.remedy import as_root
from dsdoctor.cluster import HostEntry
from dsdoctor.facts import HostFacts
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped


@check(severity=Severity.INFO, since="0.1")
def persistence_off(host: HostFacts, entry: HostEntry) -> Iterator[Finding | Skipped]:
    """Persistence mode is off: the driver initialises the GPUs anew for every program.

    ## Why it matters
    Every start, and every nvidia-smi, takes seconds longer on a host with many cards, limits of power and clocks are
    forgotten between two runs, and error counts since the driver's start begin at 0 again.

    ## How to fix it
    Start nvidia-persistenced, now and at boot. A card that holds a display does not need it.

    ## Source
    NVIDIA's "Driver Persistence".
    """
    if container(host) == "wsl":
        return  # Windows keeps the driver
    off = [gpu for gpu in job_gpus(host, entry) if gpu.persistence is False and not gpu.display]
    if not off:
        return
    yield persistence_off.finding(
        f"persistence mode is off for {named(off)}",
        evidence=[Evidence(text=f"persistence mode of GPU {gpu.index}: off", source=host.name) for gpu in off],
        fix=[_fix(host, entry)],
    )


def _fix(host: HostFacts, entry: HostEntry) -> Fix:
    if container(host):
        return Fix("Have nvidia-persistenced started on the machine around this container")
    return Fix(
        "Keep the driver's state between programs",
        (as_root(host, entry, "systemctl enable --now nvidia-persistenced"), as_root(host, entry, "nvidia-smi -pm 1")),
    )
