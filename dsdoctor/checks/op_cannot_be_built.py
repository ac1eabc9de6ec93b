"""An op that the job's DeepSpeed config needs cannot be built on a host."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.build_obstacles import obstacles
from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.ops import installed_with_deepspeed, needed
from dsdoctor.cluster import HostEntry
from dsdoctor.facts import HostFacts
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped


@check(severity=Severity.ERROR, since="0.1")
def op_cannot_be_built(host: HostFacts, entry: HostEntry, context: JobContext) -> Iterator[Finding | Skipped]:
    """A compiled op that this job's DeepSpeed config needs cannot be built on a host.

    ## Why it matters
    cpu_adam (offload of the optimizer), fused_adam (DeepSpeed's Adam on the GPU), async_io (offload to NVMe) and others
    are compiled by ninja, the C++ compiler and nvcc when they are first used, on every host. It fails there, minutes
    into the start and in other words each time: `Ninja is required to load C++ extensions`, `unsupported GNU version`,
    `CUDA_HOME does not exist`, `cannot find -lcurand`, `Unable to JIT load the async_io op`.

    ## How to fix it
    Install what is missing, or do without the op: each finding names the setting. An op can also be built once, when
    DeepSpeed is installed: `DS_BUILD_CPU_ADAM=1 pip install deepspeed`. ninja must be on the PATH of the session that
    starts the job, not only in its environment's folder.

    ## Source
    The op builders of DeepSpeed 0.9 to 0.19.8 and torch.utils.cpp_extension; which op a config needs:
    runtime/engine.py. Ops that the config does not need are not looked at (`async_io` in ds_report is nothing to mend).
    """
    for op in needed(context):
        if host.deepspeed.version is None or installed_with_deepspeed(host, op):
            continue
        found = list(obstacles(host, entry, context, op))
        if not found:
            continue
        yield op_cannot_be_built.finding(
            f"{op.name} cannot be built: {'; '.join(one.told for one in found)}",
            evidence=[op.because, *(Evidence(text=one.seen, source=host.name) for one in found)],
            fix=[*(one.fix for one in found), Fix(op.instead)],
        )
