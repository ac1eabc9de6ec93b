"""GPUs of one name have memories of different size."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.engine import check
from dsdoctor.checks.gpus_by_name import Place, by_name, listed, spread
from dsdoctor.checks.remedy import as_root
from dsdoctor.cluster import Cluster
from dsdoctor.facts import Gpu
from dsdoctor.report.model import Finding, Fix, Severity, Skipped

_TOLERANCE = 0.02  # what drivers of two versions reserve differs by less


@check(severity=Severity.INFO, since="0.1")
def gpu_memory_differs(cluster: Cluster) -> Iterator[Finding | Skipped]:
    """GPUs of the job have one name and memories of different size.

    ## Why it matters
    What fits on one host runs out of memory on the other, and the message says nothing of the difference. Cards are
    sold under one name with 10 and with 12 GB, or rebuilt with 20; ECC, where one host has it on and the other off,
    takes a sixteenth of the memory of a card without HBM.

    ## How to fix it
    Size the batch for the smallest. If ECC is the difference: the same setting on all hosts.

    ## Source
    NVML's total memory and ECC mode. Cards of different names are for mixed-gpus.
    """
    unknown: list[tuple[str, str]] = []
    for name, places in by_name(cluster, unknown).items():
        sizes = spread(places, lambda gpu: gpu.memory_mib, _TOLERANCE)
        if sizes is None:
            continue
        ecc = {gpu.ecc for _, gpu in places} == {True, False}
        why = "; ECC is on for some and off for others" if ecc else ""
        yield gpu_memory_differs.finding(
            f"{name}: the job's cards have {sizes[0]} to {sizes[1]} MiB of memory{why}",
            hosts=tuple(dict.fromkeys(host for host, _ in places)),
            evidence=listed(places, _shown),
            fix=_fixes(cluster, places, sizes[0], ecc),
        )
    for host, reason in unknown:
        yield gpu_memory_differs.skipped([host], reason)


def _shown(gpu: Gpu) -> str:
    ecc = "" if gpu.ecc is None else f", ECC {'on' if gpu.ecc else 'off'}"
    return f"{gpu.memory_mib} MiB{ecc}"


def _fixes(cluster: Cluster, places: list[Place], smallest: int, ecc: bool) -> Iterator[Fix]:
    yield Fix(f"Size the micro-batch for {smallest} MiB")
    if not ecc:
        return
    entries = {member.name: member for member in cluster.examined}
    commands = [
        as_root(member.facts, member.entry, f"nvidia-smi -i {gpu.index} -e 1")
        for host, gpu in places
        if gpu.ecc is False and (member := entries[host]).facts is not None
    ]
    yield Fix("The same ECC setting everywhere, from the next reboot on", tuple(commands))
