"""GPUs of one host cannot reach each other's memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations

from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.job_gpus import consumer, job_gpus, pair_value, variables
from dsdoctor.checks.p2p_paths import HONEST_DRIVER, ada, claims_falsely
from dsdoctor.checks.remedy import on_host
from dsdoctor.cluster import HostEntry
from dsdoctor.facts import FactUnavailable, Gpu, HostFacts
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped

# nvmlGpuP2PStatus_t of nvml.h, in the words of `nvidia-smi topo -p2p r`.
_STATUS = {
    1: "the chipset does not support it",
    2: "the GPU does not support it",
    3: "they are on different root complexes",
    4: "a registry key of the driver disables it",
    5: "it is not supported",
    6: "its state is not known",
}

_ADVICE = "Have NCCL go through host memory on this host (dsdoctor launch sets it by itself); it costs speed alone"


@check(severity=Severity.WARNING, since="0.1")
def p2p_unavailable(host: HostFacts, entry: HostEntry, context: JobContext | None) -> Iterator[Finding | Skipped]:
    """Two GPUs that the job uses on one host cannot reach each other's memory (peer-to-peer).

    ## Why it matters
    GeForce RTX 40 and 50 have none, nor has RTX 30 without a bridge. NCCL finds out by itself and copies through the
    host's memory; where it is deceived - an old driver, an IOMMU, a container - the very first collective hangs, with
    nothing completed, until the watchdog ends it after ten minutes.

    ## How to fix it
    NCCL_P2P_DISABLE=1 on that host alone. Other hosts keep their peer-to-peer. If it hangs even so,
    NCCL_IB_DISABLE=1 takes InfiniBand out of question too, for the whole job.

    ## Source
    NVML's answer for each pair (`nvidia-smi topo -p2p r`), not the cards' names; nccl-tests#117, accelerate for the
    drivers that claimed what does not work.
    """
    gpus = job_gpus(host, entry)
    if len(gpus) < 2 or any(gpu.mig for gpu in gpus):
        return
    settings = variables(host, entry, context)
    if settings.get("NCCL_P2P_DISABLE") == "1" or settings.get("NCCL_P2P_LEVEL", "").upper() == "LOC":
        return
    facts = host.gpu
    pairs = {(one, other): pair_value(facts, facts.p2p_read, one, other) for one, other in combinations(gpus, 2)}
    if all(status is None for status in pairs.values()):
        raise FactUnavailable("gpu", "NVML does not say which GPUs reach each other")
    blocked = {pair: status for pair, status in pairs.items() if status}
    if blocked:
        costly = any(consumer(gpu) for pair in blocked for gpu in pair)
        yield _finding(host, entry, blocked, None if costly else Severity.INFO)
        return
    driver = claims_falsely(host, gpus)
    if driver:
        claimed = [pair for pair in pairs if all(ada(gpu) for gpu in pair)]
        yield p2p_unavailable.finding(
            f"driver {driver} claims peer-to-peer between GeForce cards that have none; "
            f"{HONEST_DRIVER} or newer tells the truth",
            evidence=[Evidence(text=_pair(pair, "NVML says: works"), source=host.name) for pair in claimed],
            fix=[
                Fix(
                    "Have NCCL go through host memory on this host; it costs speed alone", env={"NCCL_P2P_DISABLE": "1"}
                ),
                Fix("Install a newer driver"),
            ],
        )


def _finding(
    host: HostFacts, entry: HostEntry, blocked: Mapping[tuple[Gpu, Gpu], int | None], severity: Severity | None
) -> Finding:
    (first, second), status = next(iter(blocked.items()))
    others = f", and {len(blocked) - 1} more pairs likewise" if len(blocked) > 1 else ""
    why = _STATUS.get(status or 0, f"status {status}")
    return p2p_unavailable.finding(
        f"GPU {first.index} and {second.index} ({first.name}) cannot reach each other's memory: {why}{others}",
        severity=severity,
        evidence=[
            Evidence(text=_pair(pair, _STATUS.get(code or 0, f"status {code}")), source=host.name)
            for pair, code in blocked.items()
        ],
        fix=[
            Fix(_ADVICE, env={"NCCL_P2P_DISABLE": "1"}),
            Fix("See the whole table", (on_host(entry, "nvidia-smi topo -p2p r"),)),
        ],
    )


def _pair(pair: tuple[Gpu, Gpu], said: str) -> str:
    return f"GPU {pair[0].index} - GPU {pair[1].index}: {said}"
