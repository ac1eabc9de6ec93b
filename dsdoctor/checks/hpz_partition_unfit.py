"""ZeRO++: zero_hpz_partition_size against the ranks of a host."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.job_ranks import Ranks, ranks_of
from dsdoctor.checks.precision import config_evidence
from dsdoctor.jobs import dsconfig
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped

_KEY = "zero_optimization.zero_hpz_partition_size"
_QUANTISED = ("zero_optimization.zero_quantized_weights", "zero_optimization.zero_quantized_gradients")


@check(severity=Severity.WARNING, since="0.1")
def hpz_partition_unfit(context: JobContext) -> Iterator[Finding | Skipped]:
    """ZeRO++'s second partition of the weights is not over the ranks of one host, or ZeRO++ is on below stage 3.

    ## Why it matters
    zero_hpz_partition_size makes groups of so many ranks that follow each other. It pays when a group is the GPUs of
    one host: a larger or crooked group sends the weights over the network at every layer, which it is there to avoid.
    Where the ranks of the job cannot be divided by it DeepSpeed stops: "… is not divisible by …". Hosts with unlike
    numbers of GPUs have no value that fits all. Below stage 3 none of the ZeRO++ settings does anything.

    ## How to fix it
    Set it to the slots of a host, or to 1.

    ## Source
    DeepSpeed 0.19.8, utils/groups.py, _create_zero_param_parallel_group; its ZeRO++ tutorial: "the number of ranks in
    the hpZ partition group is usually the number of devices per node".
    """
    config = context.deepspeed
    if config is None:
        return
    stage = dsconfig.get(config, "zero_optimization.stage")
    size = dsconfig.get(config, _KEY)
    wanted = isinstance(size, int) and not isinstance(size, bool) and size > 1
    on = [_KEY] * wanted + [key for key in _QUANTISED if dsconfig.get(config, key) is True]
    if on and isinstance(stage, int) and stage < 3:
        keys = ", ".join(key.rpartition(".")[2] for key in on)
        yield hpz_partition_unfit.finding(
            f"{keys} {'do' if on[1:] else 'does'} nothing at ZeRO stage {stage}; ZeRO++ wants stage 3",
            severity=Severity.INFO,
            evidence=[config_evidence(config, key) for key in (*on, "zero_optimization.stage")],
            fix=[Fix("Set zero_optimization.stage to 3, or take them out")],
        )
        return
    if not wanted:
        return
    told: set[tuple[int, ...]] = set()
    for part in context.stages:
        ranks = ranks_of(context, part)
        if ranks is None or ranks.by_host in told:
            continue
        told.add(ranks.by_host)
        found = _judged(size, ranks)
        if found is not None:
            message, severity, fix = found
            evidence = [config_evidence(config, _KEY), Evidence(text=f"{ranks.total} ranks: {ranks.because}")]
            yield hpz_partition_unfit.finding(message, severity=severity, evidence=evidence, fix=[Fix(fix)])


def _judged(size: int, ranks: Ranks) -> tuple[str, Severity, str] | None:
    """What does not fit, how bad it is, and the mend; None where a group lies within one host."""
    each = set(ranks.by_host)
    most = max(each)
    mend = f"Set it to {most}" if len(each) == 1 and most > 1 else "Take it out"
    if ranks.total % min(size, ranks.total):
        text = f"zero_hpz_partition_size is {size}, and the job's {ranks.total} ranks cannot be divided by it"
        return f"{text}; DeepSpeed stops there", Severity.ERROR, mend
    if len(ranks.by_host) == 1 or all(count % size == 0 for count in each):
        return None
    if len(each) > 1:
        shown = " and ".join(map(str, sorted(each)))
        text = f"zero_hpz_partition_size is {size}, and the hosts have {shown} ranks"
        return f"{text}: some of its groups reach over two hosts, and no value fits all", Severity.WARNING, mend
    text = f"zero_hpz_partition_size is {size}, and each host has {most} rank{'s' if most > 1 else ''}"
    return f"{text}: its groups reach over several hosts", Severity.WARNING, mend
