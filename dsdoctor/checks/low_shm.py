"""Shared memory is too small, full or not writable."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.engine import check
from dsdoctor.checks.remedy import as_root
from dsdoctor.cluster import HostEntry
from dsdoctor.facts import FactUnavailable, HostFacts
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped

MIB = 1 << 20

# Below this ds_report warns too. NVIDIA's containers are documented with --shm-size=1g, which is what the fix gives.
WANTED = 512 * MIB

# Docker's and Kubernetes' default. NCCL takes some 9.6 MB for each pair of local ranks and channel, and with two ranks
# or more on a host such a /dev/shm is full at the first collective ("failed to extend /dev/shm/nccl-… 9637892 bytes").
CONTAINER_DEFAULT = 64 * MIB

_LARGER = {
    "docker": "docker run --shm-size=1g --ulimit memlock=-1 …",
    "podman": "podman run --shm-size=1g --ulimit memlock=-1 …",
    "kubernetes": "in the pod: an emptyDir volume with medium: Memory, mounted at /dev/shm",
}


@check(severity=Severity.WARNING, since="0.1")
def low_shm(host: HostFacts, entry: HostEntry) -> Iterator[Finding | Skipped]:
    """Shared memory (/dev/shm) is small, nearly full or not writable.

    ## Why it matters
    Ranks on one host exchange data through /dev/shm, and so do DataLoader workers. When it is full NCCL stops with
    "No space left on device", although every disk has room, or a worker dies of a bus error.

    ## How to fix it
    Give the container more, or remove what dead processes left there.

    ## Source
    NVIDIA's NCCL guide, "Docker"; DeepSpeed's ds_report, which warns below 512 MB; pytorch/ci-infra#490.
    """
    shm = host.shm
    seen = [Evidence(text=f"{shm.free_bytes // MIB} of {shm.total_bytes // MIB} MiB free", source=host.name)]
    shares = entry.processes > 1 and _uses_nccl(host)
    if not shm.writable:
        yield low_shm.finding(
            "shared memory (/dev/shm) is not writable for the job's user; ranks on the host exchange data through it",
            severity=Severity.ERROR if shares else None,
            evidence=seen,
            fix=[Fix("Give it its usual mode", (as_root(host, entry, "chmod 1777 /dev/shm"),))],
        )
    elif shm.total_bytes < WANTED:
        yield low_shm.finding(
            f"shared memory (/dev/shm) has {shm.total_bytes // MIB} MiB; 512 or more are wanted",
            severity=Severity.ERROR if shares and shm.total_bytes <= CONTAINER_DEFAULT else None,
            evidence=seen,
            fix=[_larger(host, entry)],
        )
    elif shm.free_bytes < WANTED:
        listing = "ls -lS /dev/shm"
        yield low_shm.finding(
            f"shared memory (/dev/shm) is nearly full: {shm.free_bytes // MIB} MiB are free, 512 or more are wanted",
            evidence=seen,
            fix=[
                Fix(
                    "Remove what ended jobs left there (nccl-*, torch_*), once nobody uses it",
                    (as_root(host, entry, listing),),
                )
            ],
        )


def _uses_nccl(host: HostFacts) -> bool:
    """Whether the ranks talk by NCCL; gloo, on hosts without GPUs, does not go through shared memory."""
    try:
        return bool(host.gpu.gpus)
    except FactUnavailable:
        return False


def _larger(host: HostFacts, entry: HostEntry) -> Fix:
    try:
        kind = host.container.kind
    except FactUnavailable:
        kind = "none"
    if kind in _LARGER:
        return Fix("Start the container with more", (_LARGER[kind],))
    return Fix("Make it larger until the next boot", (as_root(host, entry, "mount -o remount,size=8g /dev/shm"),))
