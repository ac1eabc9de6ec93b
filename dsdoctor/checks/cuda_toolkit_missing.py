"""DeepSpeed cannot be imported on a host with GPUs and no CUDA toolkit."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.installed import allows
from dsdoctor.checks.ops import has_gpus
from dsdoctor.checks.remedy import install, on_host
from dsdoctor.checks.toolkit import minor_of
from dsdoctor.cluster import HostEntry
from dsdoctor.facts import HostFacts
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped


@check(severity=Severity.ERROR, since="0.1")
def cuda_toolkit_missing(host: HostFacts, entry: HostEntry, context: JobContext | None) -> Iterator[Finding | Skipped]:
    """A host with GPUs has no CUDA toolkit, and the installed DeepSpeed cannot even be imported without one.

    ## Why it matters
    `MissingCUDAException: CUDA_HOME does not exist, unable to compile CUDA op(s)`, from `import deepspeed` alone: up to
    0.19.4 it asks nvcc for its version while it lists which ops the host could build. torch brings the CUDA that it
    runs with, but no nvcc; a driver brings none either.

    ## How to fix it
    Install the toolkit, or DeepSpeed 0.19.5 or newer, which leaves such ops out.

    ## Source
    is_compatible of the op builders (spatial_inference.py and others), v0.10.3 to v0.18.3; commit 646e491c9, in
    v0.19.5, catches it (issue 7452).
    """
    deepspeed = host.deepspeed.version
    if deepspeed is None or not allows("<0.19.5", deepspeed) or not has_gpus(host):
        return
    if context is not None and context.deepspeed is None:
        return
    cuda = host.cuda
    if cuda.home is not None and cuda.nvcc_version is not None:
        return
    wanted = minor_of(host.torch.cuda or "")
    what = "there is no CUDA toolkit" if cuda.home is None else f"{cuda.home} has no nvcc"
    yield cuda_toolkit_missing.finding(
        f"{what}, and DeepSpeed {deepspeed} cannot be imported without one",
        severity=Severity.ERROR if context else Severity.WARNING,
        evidence=[
            Evidence(text=f"CUDA_HOME: {cuda.home or 'none'}; nvcc: {cuda.nvcc or 'none'}", source=host.name),
            *([context.cite(f"deepspeed: {context.deepspeed.path}")] if context and context.deepspeed else []),
        ],
        fix=[
            Fix("Install a DeepSpeed that does without", (on_host(entry, install(host, "deepspeed>=0.19.5")),)),
            Fix(
                f"Install the toolkit of CUDA {wanted}, and set CUDA_HOME for the job",
                (on_host(entry, f"conda install -c nvidia cuda-toolkit={wanted}"),),
            ),
        ],
    )
