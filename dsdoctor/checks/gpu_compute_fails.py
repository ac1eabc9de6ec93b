"""A GPU that is there cannot be computed with, tried for real."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.engine import check
from dsdoctor.checks.job_gpus import wanted
from dsdoctor.checks.remedy import on_host, run_python
from dsdoctor.checks.tried import Cause, cause_of, tried
from dsdoctor.cluster import HostEntry
from dsdoctor.facts import DeepGpu, DeepTorch, FactUnavailable, HostFacts
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped

_SPOILT = (
    "Take the card out of the job (--exclude HOST:NUMBER) and have it looked at: its errors are in the kernel's log"
)


@check(severity=Severity.ERROR, since="0.1", trial="deep")
def gpu_compute_fails(host: HostFacts, entry: HostEntry) -> Iterator[Finding | Skipped]:
    """A GPU of the job is not seen by torch, cannot be used, or computes wrong; tried only with `--deep`.

    ## Why it matters
    NVML lists cards that CUDA cannot use: a driver too old for the build, no access to /dev/nvidia*, memory that
    somebody else holds, a card that has fallen off the bus or whose memory fails. A card that computes wrong is worse:
    nothing says so, the loss is just never right.

    ## How to fix it
    Mend what CUDA said. A card with wrong numbers is taken out of the job; its ECC counts and Xids say more.

    ## Source
    On each GPU of the job 256 MiB are written and read back, and matrices multiplied whose product is known exactly.
    """
    deep = tried(host)
    if deep is None:
        return
    torch = deep.torch
    if torch is None or torch.version is None:
        if host.gpu.gpus:
            raise FactUnavailable("deep", "no GPU was tried, for torch could not be imported")
        return
    yield from _unseen(host, entry, torch)
    expected = min(torch.gpus or 0, entry.processes)
    if len(deep.gpus) < expected:
        yield gpu_compute_fails.skipped([host.name], f"{len(deep.gpus)} of {expected} GPUs were come to")
    for gpu in deep.gpus:
        told = _told(gpu)
        if gpu.error is not None:
            cause = cause_of([(host.name, None, [gpu.error])], gpu.error)
            yield _finding(gpu, f"cannot be used: {cause.message}", [Evidence(gpu.error, host.name)], cause)
        elif told:
            evidence = [Evidence(f"GPU {gpu.index}: {each}", host.name) for each in told]
            yield _finding(gpu, f"computes wrong: {told[0]}", evidence)


def _unseen(host: HostFacts, entry: HostEntry, torch: DeepTorch) -> Iterator[Finding]:
    """Whether torch sees fewer GPUs than the job wants of this host, and CUDA_VISIBLE_DEVICES does not hide them."""
    if torch.cuda is None:  # torch-cpu-build says so
        return
    there = [gpu.index for gpu in host.gpu.gpus if wanted(entry, gpu.index)]
    seen = torch.gpus or 0
    if not there or seen >= len(there) or (torch.visible_devices is not None and not torch.gpu_error):
        return
    cause = cause_of([(host.name, None, [torch.gpu_error])], torch.gpu_error) if torch.gpu_error else None
    why = f": {cause.message}" if cause else ""
    yield gpu_compute_fails.finding(
        f"torch {torch.version} sees {seen or 'none'} of the {len(there)} GPUs that the job uses here{why}",
        evidence=[Evidence(torch.gpu_error or f"torch.cuda.device_count() is {seen}", host.name)],
        fix=[
            *(cause.fix if cause else ()),
            Fix("See what CUDA says", (on_host(entry, run_python(host, "import torch; torch.cuda.init()")),)),
        ],
    )


def _told(gpu: DeepGpu) -> list[str]:
    """What is wrong with the numbers of a card."""
    told = []
    if gpu.wrong:
        total = f" of {gpu.filled_bytes // 8:,}" if gpu.filled_bytes else ""
        told.append(f"{gpu.wrong:,}{total} numbers were read from its memory otherwise than they were written")
    told += [f"{wrong:,} of 1,048,576 numbers of a {kind} product" for kind, wrong in gpu.products.items() if wrong]
    return told


def _finding(gpu: DeepGpu, what: str, evidence: list[Evidence], cause: Cause | None = None) -> Finding:
    name = f" ({gpu.name})" if gpu.name else ""
    fixes = [*(cause.fix if cause else ()), Fix(_SPOILT)]
    return gpu_compute_fails.finding(f"GPU {gpu.index}{name} {what}", evidence=evidence, fix=fixes)
