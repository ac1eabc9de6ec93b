"""What a training moves to the host's memory does not fit there."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.amounts import amount
from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.room import PROGRAM, Need, ask_model, evidence, needs, ram_limit
from dsdoctor.cluster import Cluster, HostEntry
from dsdoctor.facts import HostFacts
from dsdoctor.report.model import Evidence, Finding, Fix, Severity


@check(severity=Severity.ERROR, since="0.1")
def ram_exceeded(host: HostFacts, entry: HostEntry, cluster: Cluster, context: JobContext) -> Iterator[Finding]:
    """The optimizer states and parameters that are offloaded need more memory than the host has.

    ## Why it matters
    Offloaded states are pinned: they cannot be swapped. When they do not fit, the kernel kills a rank without a
    traceback ("exits with return code = -9"), or the allocation fails while the optimizer is made.

    ## How to fix it
    More hosts (each keeps its share), fewer trained parameters, no offload where the cards have room, or offload to
    NVMe.

    ## Source
    18 bytes for each trained parameter (states 8, fp32 copy 4, fp32 gradient 4, a 16-bit copy 2; DeepSpeed's ZeRO
    estimators count 16 of them), over all ranks, as two ranks on a CPU showed (benchmarks/README.md), and 1.1 GB for
    each rank's program; against MemTotal and the limits of the cgroups. It is
    a warning where it fits, but not into what is available now.
    """
    ask_model(context.job)
    if context.deepspeed is None:
        return  # nothing else offloads
    need = needs(context.job, cluster)[0]
    ranks = entry.processes
    if not need.memory.ram or ranks < 1:
        return
    wanted = ranks * (need.memory.ram + PROGRAM)
    limit, available = ram_limit(host), host.memory.available_bytes
    if wanted <= min(limit, available):
        return
    stage = need.outlook.stage.name
    has = f"{amount(limit)}" if wanted > limit else f"{amount(limit)}, of which {amount(available)} are available now"
    yield ram_exceeded.finding(
        f"the {ranks} rank{'' if ranks == 1 else 's'} of stage {stage} keep {amount(wanted)} in the host's memory, and "
        f"it has {has}",
        severity=None if wanted > limit else Severity.WARNING,
        evidence=[Evidence(text=f"memory: {amount(limit)}", source=host.name), *evidence(need, need.memory.host)],
        fix=_fixes(need),
    )


def _fixes(need: Need) -> Iterator[Fix]:
    if need.outlook.training.lora is None:
        yield Fix("LoRA: only what is trained has states (another result)")
    yield Fix("offload_optimizer: {device: nvme}, with nvme_path on a fast disk")
    yield Fix("More hosts: each keeps its share of the states")
