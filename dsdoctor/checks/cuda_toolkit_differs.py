"""The CUDA toolkit that would build ops is not of torch's CUDA version."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.installed import allows
from dsdoctor.checks.ops import Op, has_gpus, installed_with_deepspeed, needed, variable
from dsdoctor.checks.toolkit import accepted, minor_of, other_toolkit
from dsdoctor.cluster import HostEntry
from dsdoctor.facts import HostFacts
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped


@check(severity=Severity.ERROR, since="0.1")
def cuda_toolkit_differs(host: HostFacts, entry: HostEntry, context: JobContext | None) -> Iterator[Finding | Skipped]:
    """The CUDA toolkit that would build this job's ops has another version than the CUDA that torch was built with.

    ## Why it matters
    DeepSpeed builds cpu_adam and others when they are first used. With another major version it refuses: `Installed
    CUDA version 11.8 does not match the version torch was compiled with 12.1, unable to compile`. Another minor
    version does no harm, and says so in the log (`... accepting this combination`) - as long as DeepSpeed knows it:
    its table ends at 12.9, so that 13.1 beside 13.0 is refused. Torch itself needs no toolkit at all.

    ## How to fix it
    Point CUDA_HOME at a toolkit of torch's version, where there is one; else install it beside the other.

    ## Source
    nvcc of CUDA_HOME (or the PATH) as torch's cpp_extension finds it; assert_no_cuda_mismatch in DeepSpeed's
    op_builder/builder.py, 0.9 to 0.19.8, which is asked for ops of the processor (cpu_adam, async_io) alone.
    """
    torch, toolkit = host.torch.cuda, host.cuda.nvcc_version
    if torch is None or toolkit is None or not has_gpus(host) or minor_of(torch) == toolkit:
        return
    same_major = torch.split(".")[0] == toolkit.split(".")[0]
    ops = needed(context) if context else ()
    built = tuple(op for op in ops if not installed_with_deepspeed(host, op)) if ops else ()
    if not built and (context is not None or same_major or host.deepspeed.version is None):
        return
    unchecked = variable(host, entry, context, "DS_SKIP_CUDA_CHECK") == "1"
    severity, effect = _judged(host, built, same_major, unchecked)
    yield cuda_toolkit_differs.finding(
        f"the CUDA toolkit is {toolkit}, and torch was built with {minor_of(torch)}: {effect}",
        severity=severity,
        evidence=[
            Evidence(text=f"{host.cuda.nvcc}: {toolkit}; torch {host.torch.version}: {torch}", source=host.name),
            *(op.because for op in built),
        ],
        fix=[] if severity is Severity.INFO and same_major else _fixes(host, minor_of(torch)),
    )


def _judged(host: HostFacts, built: tuple[Op, ...], same_major: bool, unchecked: bool) -> tuple[Severity, str]:
    """How bad it is, and what comes of it."""
    if not built:
        return Severity.INFO, "DeepSpeed could not build its ops with it"
    names = ", ".join(op.name for op in built)
    deepspeed = host.deepspeed.version or ""
    compared = [op.name for op in built if op.for_processor or allows("<0.12.3", deepspeed)]
    passes = same_major and accepted(deepspeed, host.cuda.nvcc_version or "", minor_of(host.torch.cuda or ""))
    if compared and not passes and not unchecked:
        return Severity.ERROR, f"DeepSpeed {deepspeed} refuses to build {', '.join(compared)} with it"
    if not same_major:
        return Severity.WARNING, f"{names} is built with another CUDA than it runs with, and nothing compares them"
    return Severity.INFO, f"that does no harm to {names}"


def _fixes(host: HostFacts, cuda: str) -> Iterator[Fix]:
    path = other_toolkit(host, cuda)
    if path is not None:
        yield Fix(
            "Build with the toolkit of torch's version that is there",
            (f"export CUDA_HOME={shlex.quote(path)} PATH={shlex.quote(path)}/bin:$PATH   # in setup: of the job file",),
            env={"CUDA_HOME": path},
        )
        return
    yield Fix(
        f"Install the toolkit of CUDA {cuda} beside the other, and set CUDA_HOME for the job",
        (f"conda install -c nvidia cuda-toolkit={cuda}",),
    )
