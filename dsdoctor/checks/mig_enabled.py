"""A GPU of the job is divided into instances."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.job_gpus import job_gpus, named, variables
from dsdoctor.checks.remedy import as_root, on_host
from dsdoctor.cluster import HostEntry
from dsdoctor.facts import HostFacts
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped


@check(severity=Severity.ERROR, since="0.1")
def mig_enabled(host: HostFacts, entry: HostEntry, context: JobContext | None) -> Iterator[Finding | Skipped]:
    """A GPU of the job is divided (MIG): a process sees one instance of it, and instances do not reach each other.

    ## Why it matters
    CUDA shows a process one instance, whatever the number of cards: the rank with local rank 1 stops with "invalid
    device ordinal". One that names its instance gets a part of the memory, and no peer-to-peer to any other.

    ## How to fix it
    Switch MIG off on the cards of a training job of several ranks; for one rank name the instance in
    CUDA_VISIBLE_DEVICES.

    ## Source
    NVIDIA's MIG User Guide: "CUDA Device Enumeration", "Deployment Considerations".
    """
    divided = [gpu for gpu in job_gpus(host, entry) if gpu.mig]
    if not divided:
        return
    empty = [gpu for gpu in divided if gpu.mig_devices == 0]
    chosen = variables(host, entry, context).get("CUDA_VISIBLE_DEVICES", "").startswith("MIG-")
    if not empty and chosen and entry.processes == 1:
        return  # the user knows
    if empty:
        said = f"{named(empty)}: MIG is on and no instance is made, so CUDA sees nothing of it"
    elif entry.processes > 1:
        said = f"{named(divided)}: MIG is on, a process sees one instance, and {entry.processes} ranks are to run here"
    else:
        said = f"{named(divided)}: MIG is on, and the rank gets one instance of it"
    yield mig_enabled.finding(
        said,
        severity=None if empty or entry.processes > 1 else Severity.WARNING,
        evidence=[
            Evidence(text=f"GPU {gpu.index}: MIG on, instances: {_count(gpu.mig_devices)}", source=host.name)
            for gpu in divided
        ],
        fix=[
            Fix(
                "Switch MIG off while nothing runs on the card",
                tuple(as_root(host, entry, f"nvidia-smi -i {gpu.index} -mig 0") for gpu in divided),
            ),
            Fix("Name one instance for each process: CUDA_VISIBLE_DEVICES=MIG-…", (on_host(entry, "nvidia-smi -L"),)),
        ],
    )


def _count(instances: int | None) -> str:
    return "not known" if instances is None else str(instances)
