"""GPUs of a host that no rank of the job uses."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.job_gpus import named, variables, wanted
from dsdoctor.cluster import HostEntry
from dsdoctor.facts import FactUnavailable, Gpu, HostFacts
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped

_FREE_MIB = 1024  # with more in use somebody works on it


@check(severity=Severity.INFO, since="0.1")
def idle_gpus(host: HostFacts, entry: HostEntry, context: JobContext | None) -> Iterator[Finding | Skipped]:
    """The host has GPUs that nobody uses, and the hostfile gives the job fewer slots than there are.

    ## Why it matters
    Two cards and one process: the job takes twice as long as it has to.

    ## How to fix it
    Raise slots= in the hostfile, or without a hostfile start as many processes as there are cards. Keep the global
    batch the same: half as many accumulation steps for twice as many ranks. If the cards are meant for others, all is
    well; picking them with --include says so.

    ## Source
    NVML; cards with a process on them, divided ones, and those that CUDA_VISIBLE_DEVICES hides are not counted.
    """
    facts = host.gpu
    if facts.status not in ("ok", "no-library", "driver-not-loaded"):
        raise FactUnavailable("gpu", facts.detail or facts.status)
    if entry.devices is not None or "CUDA_VISIBLE_DEVICES" in variables(host, entry, context):
        return
    idle = [gpu for gpu in facts.gpus if not wanted(entry, gpu.index) and _free(gpu)]
    if not idle or len(idle) == len(facts.gpus):
        return
    have = len(facts.gpus)
    yield idle_gpus.finding(
        f"{named(idle)}: nobody uses {'it' if len(idle) == 1 else 'them'}; the host has {have} GPUs, and "
        f"{entry.slots} rank{' is' if entry.slots == 1 else 's are'} to run there",
        evidence=[
            Evidence(text=f"slots={entry.slots}", source="hostfile", line=entry.line),
            *(Evidence(text=f"GPU {gpu.index}: {gpu.memory_used_mib} MiB in use", source=host.name) for gpu in idle),
        ],
        fix=[Fix(f"{_advice(entry, idle)}, and keep the global batch the same")],
    )


def _advice(entry: HostEntry, idle: list[Gpu]) -> str:
    """How the job gets them: by the number of slots where they follow upon its cards, else by their numbers."""
    numbers = [*range(entry.slots), *(gpu.index for gpu in idle)]
    if numbers == list(range(len(numbers))):
        return f"Set slots={len(numbers)} for {entry.name}"
    return f"Give the host all its slots and start with --include {entry.name}:{','.join(map(str, numbers))}"


def _free(gpu: Gpu) -> bool:
    busy = gpu.processes or (gpu.memory_used_mib or 0) > _FREE_MIB
    return gpu.error is None and not gpu.mig and not busy
