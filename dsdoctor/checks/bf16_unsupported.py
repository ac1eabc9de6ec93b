"""The job asks for bf16 on a GPU that has none."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.precision import asks_for_bf16
from dsdoctor.cluster import HostEntry
from dsdoctor.facts import FactUnavailable, HostFacts
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped

# bf16 arithmetic came with Ampere: CUDA C++ Programming Guide, arithmetic instructions by compute capability.
NEEDED = (8, 0)


@check(severity=Severity.ERROR, since="0.1")
def bf16_unsupported(host: HostFacts, entry: HostEntry, context: JobContext) -> Iterator[Finding | Skipped]:
    """The job asks for bf16, and a GPU of the job has no bf16 arithmetic.

    ## Why it matters
    V100 and T4 have none. transformers stops with "Your setup doesn't support bf16/gpu", or the emulated arithmetic
    is many times slower and every other host waits for this one. All ranks of a job must use the same precision.

    ## How to fix it
    Use fp16 on every rank, or leave the host out. `precision: auto` in the job file takes what every GPU has.

    ## Source
    NVIDIA's tables by compute capability: bf16 from 8.0 on.
    """
    asked = tuple(asks_for_bf16(context))
    if not asked:
        return
    if host.gpu.status not in ("ok", "no-library"):
        raise FactUnavailable("gpu", host.gpu.detail or host.gpu.status)
    for gpu in host.gpu.gpus:
        if gpu.index not in (entry.devices if entry.devices is not None else range(entry.slots)):
            continue
        if gpu.compute_capability is None:
            raise FactUnavailable("gpu", f"the compute capability of GPU {gpu.index} is not known")
        if gpu.compute_capability >= NEEDED:
            continue
        shown = ".".join(map(str, gpu.compute_capability))
        yield bf16_unsupported.finding(
            f"the job asks for bf16; {gpu.name} has compute capability {shown}, and bf16 needs 8.0",
            evidence=[*asked, Evidence(text=f"GPU {gpu.index}: {gpu.name}, {shown}", source=host.name)],
            fix=[
                Fix("Use fp16 on every host: in the places named above, or precision: auto in the job file"),
                Fix(f"Leave the host out: --exclude {entry.name}"),
            ],
        )
