"""A GPU's compute mode keeps the job, or a second process, from using it."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.engine import check
from dsdoctor.checks.job_gpus import job_gpus, named
from dsdoctor.checks.remedy import as_root
from dsdoctor.cluster import HostEntry
from dsdoctor.facts import Gpu, HostFacts
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped

# nvmlComputeMode_t of nvml.h; 1, "exclusive thread", is gone since CUDA 8 and means the same as 3.
_MODES = {1: "exclusive thread", 2: "prohibited", 3: "exclusive process"}
_PROHIBITED = 2
_SAID = {
    "prohibited": "no program may use it",
    "taken": "one process may use it, and another one than the job's does",
    "free": "a rank that touches another's card first keeps that rank out",
}
_MPS = "nvidia-cuda-mps"  # its server holds the card for all of its clients


@check(severity=Severity.ERROR, since="0.1")
def gpu_compute_mode(host: HostFacts, entry: HostEntry) -> Iterator[Finding | Skipped]:
    """A GPU of the job is closed to programs, or lets in one process only.

    ## Why it matters
    Prohibited: no program may use the card. Exclusive process: the second program stops with "all CUDA-capable devices
    are busy or unavailable" - a rank where something else runs already, and every rank that touches GPU 0 before it
    turns to its own card.

    ## How to fix it
    Put the mode back to DEFAULT, or, where it is meant so, end what holds the card.

    ## Source
    NVML (nvmlComputeMode_t); CUDA's cudaErrorDevicesUnavailable. With MPS, exclusive process is the mode wanted.
    """
    closed = [gpu for gpu in job_gpus(host, entry) if gpu.compute_mode in _MODES and not _shared(gpu)]
    kinds = {
        "prohibited": [gpu for gpu in closed if gpu.compute_mode == _PROHIBITED],
        "taken": [gpu for gpu in closed if gpu.compute_mode != _PROHIBITED and gpu.processes],
        "free": [gpu for gpu in closed if gpu.compute_mode != _PROHIBITED and not gpu.processes],
    }
    for kind, gpus in kinds.items():
        if not gpus or (kind == "free" and entry.processes < 2):
            continue
        yield gpu_compute_mode.finding(
            f"{named(gpus)} in the compute mode {_MODES[gpus[0].compute_mode or 0]}: {_SAID[kind]}",
            severity=Severity.INFO if kind == "free" else None,
            evidence=[Evidence(text=_seen(gpu), source=host.name) for gpu in gpus],
            fix=[
                Fix(
                    "Let several processes use the card",
                    tuple(as_root(host, entry, f"nvidia-smi -i {gpu.index} -c DEFAULT") for gpu in gpus),
                )
            ],
        )


def _shared(gpu: Gpu) -> bool:
    """Whether MPS holds the card for its clients, which is what the exclusive mode is for."""
    return any(process.command.startswith(_MPS) for process in gpu.processes)


def _seen(gpu: Gpu) -> str:
    held = [f"process {process.pid} {process.command} {process.user}".rstrip() for process in gpu.processes]
    return f"GPU {gpu.index}: {_MODES[gpu.compute_mode or 0]}, used by {', '.join(held) or 'nothing'}"
