"""What ends a hanging collective is switched off."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.job_gpus import job_gpus, ranks_of, variables
from dsdoctor.cluster import Cluster, HostEntry
from dsdoctor.facts import HostFacts
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped

# torch reads the new name first and the old one after it: ProcessGroupNCCL.hpp of torch 2.13.
_HANDLING = ("TORCH_NCCL_ASYNC_ERROR_HANDLING", "NCCL_ASYNC_ERROR_HANDLING")
_WAITING = ("TORCH_NCCL_BLOCKING_WAIT", "NCCL_BLOCKING_WAIT")
_RECORDER = ("TORCH_FR_BUFFER_SIZE", "TORCH_NCCL_TRACE_BUFFER_SIZE")


@check(severity=Severity.WARNING, since="0.1")
def watchdog_off(
    host: HostFacts, entry: HostEntry, cluster: Cluster, context: JobContext | None
) -> Iterator[Finding | Skipped]:
    """A variable switches off what ends a collective that hangs, or the record that says which one it was.

    ## Why it matters
    With torch's error handling off a collective that one rank never joins is waited for without end: the job stands
    for hours, no log has a line, and the host may have to be rebooted. Without the flight recorder a timeout says that
    something hung and not what.

    ## How to fix it
    Unset it. The default ends the job after the timeout (10 minutes), which is what is wanted of a job that nobody
    watches; `dsdoctor launch` switches the flight recorder on.

    ## Source
    ProcessGroupNCCL.hpp of torch 2.13 (error handling 0 is "no handling"). With TORCH_NCCL_BLOCKING_WAIT=1 the wait
    itself ends, and error handling is not needed.
    """
    if ranks_of(cluster) < 2:
        return
    settings = variables(host, entry, context)
    waits = any(settings.get(name) == "1" for name in _WAITING)
    handling = _first(settings, _HANDLING)
    recorder = _first(settings, _RECORDER)
    found = []
    if handling and settings[handling] == "0" and not waits:
        found.append((handling, "a collective that hangs is waited for without end", Severity.WARNING))
    if recorder and settings[recorder] == "0":
        found.append((recorder, "after a timeout nothing tells which collective hung", Severity.INFO))
    if not found or not job_gpus(host, entry):
        return  # without GPUs gloo is used, which has neither
    for name, effect, severity in found:
        source = host.name if context is None or name in host.environment.variables else context.job.source
        yield watchdog_off.finding(
            f"{name}=0: {effect}",
            severity=severity,
            evidence=[Evidence(text=f"{name}=0", source=source)],
            fix=[Fix(f"Unset {name}")],
        )


def _first(settings: dict[str, str], names: tuple[str, ...]) -> str | None:
    return next((name for name in names if name in settings), None)
