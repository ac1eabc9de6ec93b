"""A variable of a search for errors is still set, and costs time in every step."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.env_values import reads_as
from dsdoctor.checks.rank_settings import ENVIRONMENT, Setting, settings
from dsdoctor.checks.remedy import where_set
from dsdoctor.cluster import HostEntry
from dsdoctor.facts import HostFacts
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped

# Switches, and what they cost while they are on; those of CUDA and NCCL matter where there are GPUs.
_SWITCHES = {
    "CUDA_LAUNCH_BLOCKING": "each kernel is waited for before the next is launched, several times slower",
    "PYTORCH_NO_CUDA_MEMORY_CACHING": "every tensor asks the driver for its memory",
    "TORCH_NCCL_DESYNC_DEBUG": "every collective is reported to the store",
    "NCCL_DESYNC_DEBUG": "every collective is reported to the store",
}
_PER_CALL = frozenset({"ALL", "COLL", "CALL"})  # subsystems of NCCL_DEBUG_SUBSYS with a line for each collective


@check(severity=Severity.WARNING, since="0.1")
def debug_left_on(host: HostFacts, entry: HostEntry, context: JobContext | None) -> Iterator[Finding | Skipped]:
    """A variable that was set to find an error is still set, and slows every step down or floods the logs.

    ## Why it matters
    CUDA_LAUNCH_BLOCKING=1 takes away what makes a GPU fast; TORCH_DISTRIBUTED_DEBUG=DETAIL compares every collective
    over all ranks first, and kills DistributedDataParallel on gloo with a segmentation fault (torch 2.13). They stay in
    ~/.bashrc or a job file long after the error is found.

    ## How to fix it
    Unset it, and set it again for the one run that needs it.

    ## Source
    CUDA's programming guide (CUDA_LAUNCH_BLOCKING); torch's documentation of torch.distributed and of memory
    management; NCCL's user guide: debugging variables "should not be used in production nor retained in scripts".
    """
    found = settings(host, entry, context)
    gpus = bool(host.gpu.gpus)
    for name, effect, severity in _on(found, gpus):
        got = found[name]
        yield debug_left_on.finding(
            f"{name}={got.value} is set: {effect}",
            severity=severity,
            evidence=[Evidence(text=f"{name}={got.value}, from {got.source}", source=host.name)],
            fix=[_fix(entry, name, got)],
        )


def _on(found: dict[str, Setting], gpus: bool) -> Iterator[tuple[str, str, Severity]]:
    if gpus:
        for name, effect in _SWITCHES.items():
            if name in found and _true(found[name].value):
                yield name, effect, Severity.WARNING
        debug = found["NCCL_DEBUG"].value.upper() if "NCCL_DEBUG" in found else ""
        subsystems = found["NCCL_DEBUG_SUBSYS"].value.upper() if "NCCL_DEBUG_SUBSYS" in found else ""
        chatty = _PER_CALL & set(subsystems.split(",")) if not subsystems.startswith("^") else set()
        if debug in ("INFO", "TRACE") and chatty:
            effect = f"NCCL_DEBUG={debug} then prints a line for every collective of every rank"
            yield "NCCL_DEBUG_SUBSYS", effect, Severity.WARNING
        elif debug == "TRACE":
            yield "NCCL_DEBUG", "NCCL prints what only its developers need; INFO or WARN is enough", Severity.INFO
    if "TORCH_DISTRIBUTED_DEBUG" in found and found["TORCH_DISTRIBUTED_DEBUG"].value.upper() == "DETAIL":
        yield "TORCH_DISTRIBUTED_DEBUG", "every collective is compared over all ranks before it runs", Severity.WARNING


def _true(value: str) -> bool:
    return reads_as(value) != 0 or value.strip().lower() in ("true", "t", "yes", "y", "on")


def _fix(entry: HostEntry, name: str, got: Setting) -> Fix:
    if got.source == ENVIRONMENT:
        return Fix(f"Unset {name}, where it is set", (where_set(entry, name),))
    return Fix(f"Take {name} out of {got.source}")
