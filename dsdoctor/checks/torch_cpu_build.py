"""torch is a build for CPUs on a host that has GPUs."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.remedy import install, on_host
from dsdoctor.cluster import HostEntry
from dsdoctor.facts import HostFacts
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped

# The arguments by which programs are told to stay on the processor.
_CPU = ("use_cpu", "no_cuda", "cpu")


@check(severity=Severity.ERROR, since="0.1")
def torch_cpu_build(host: HostFacts, entry: HostEntry, context: JobContext | None) -> Iterator[Finding | Skipped]:
    """The job's torch is a build for CPUs, on a host that has NVIDIA GPUs.

    ## Why it matters
    `Torch not compiled with CUDA enabled`, or nothing at all: the program sees no GPU and trains on the processor, and
    in a job of several hosts the ranks of this one take gloo while the others wait for it in NCCL. It comes from an
    index of CPU builds, from conda's cpuonly, or from a dependency that pulled torch in anew.

    ## How to fix it
    Install the build for CUDA, the same release as on the other hosts.

    ## Source
    torch/version.py (`cuda = None`), and the cards that NVML lists.
    """
    torch = host.torch
    if torch.version is None or torch.cuda is not None or torch.hip is not None or not host.gpu.gpus:
        return
    if context and any(str(value).lower() in ("true", "1", "yes") for _, _, value in context.argument(*_CPU)):
        return
    release = torch.version.partition("+")[0]
    driver = host.gpu.cuda_driver_version
    yield torch_cpu_build.finding(
        f"torch {torch.version} is a build for CPUs, and the host has {len(host.gpu.gpus)} GPU"
        f"{'s' if len(host.gpu.gpus) > 1 else ''} ({host.gpu.gpus[0].name})",
        severity=Severity.ERROR if context else Severity.WARNING,
        evidence=[Evidence(text=f"{torch.path or 'torch'}/version.py: cuda = None", source=host.name)],
        fix=[
            Fix(
                f"Install a build for CUDA{f' up to {driver}, which the driver can run' if driver else ''}",
                (on_host(entry, install(host, "--force-reinstall", f"torch=={release}")),),
            )
        ],
    )
