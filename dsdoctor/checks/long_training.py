"""The training would take longer than anybody waits."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.context import JobContext
from dsdoctor.checks.duration import StageTime, durations
from dsdoctor.checks.engine import check
from dsdoctor.checks.job_gpus import job_gpus
from dsdoctor.checks.room import ask_model
from dsdoctor.cluster import Cluster
from dsdoctor.facts import FactUnavailable
from dsdoctor.jobs.forecast.speed import LAUNCH, LINK_USE, UTILISATION, span
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped

# Of all stages together, at the least: a month on cards that others wait for.
_LONG = 30 * 86400.0


@check(severity=Severity.WARNING, since="0.1")
def long_training(cluster: Cluster, context: JobContext) -> Iterator[Finding | Skipped]:
    """The training is forecast to take more than a month even if everything goes as well as it can.

    ## Why it matters
    "It would take 11 years" is found out on the third day, from the progress bar.

    ## How to fix it
    Fewer tokens, a smaller model, LoRA, more or faster cards; where the network takes most of the time, a strategy
    that sends less: ZeRO-2 or plain data parallelism instead of ZeRO-3 over hosts, more gradient accumulation.

    ## Source
    Operations of forward and backward pass (2 a parameter and token forward, 4 backward, as many again forward with
    checkpointing), at 20 to 57 % of the slowest card's peak; the time in which Python starts kernels; and what goes
    over the slowest link, by the interface's speed. The least of the range must be above 30 days. The ranges are
    compared with recorded runs in the tests; the rates of the cards with their sources are in
    dsdoctor/jobs/forecast/data/gpus.yaml.
    """
    ask_model(context.job)
    try:
        if not any(job_gpus(member.facts, member.entry) for member in cluster.examined if member.facts):
            return  # a training on CPUs is a trial
        found = durations(context.job, cluster)
    except FactUnavailable as missing:
        yield long_training.skipped([member.name for member in cluster], str(missing))
        return
    known = [(stage, stage.seconds) for stage in found if stage.seconds is not None]
    if not known:
        reason = "how much data the stages go through is not known (max_steps, max_train_samples, or a folder of data)"
        yield long_training.skipped([member.name for member in cluster], reason)
        return
    least = sum(seconds[0] for _, seconds in known if seconds)
    most = sum(seconds[1] for _, seconds in known if seconds)
    if least <= _LONG:
        return
    longest = max(known, key=lambda pair: pair[1][1] if pair[1] else 0.0)[0]
    yield long_training.finding(
        f"the training takes {span(least)} to {span(most)}",
        evidence=list(_evidence(longest)),
        fix=list(_fixes(longest)),
    )


def _evidence(stage: StageTime) -> Iterator[Evidence]:
    speed = stage.speed
    if stage.work is not None:
        yield Evidence(text=f"stage {stage.stage}: {stage.work.least:.3g} to {stage.work.most:.3g} tokens")
        yield Evidence(text=stage.work.because)
    yield Evidence(text=f"a step of {speed.tokens:,} tokens takes {speed.least:.3g} to {speed.most:.3g} seconds")
    low, high = (round(100 * part) for part in UTILISATION)
    yield Evidence(text=f"computing: at most {speed.compute:.3g} s, on {stage.slowest.name} at {low} to {high} %")
    yield Evidence(text=f"starting kernels: at most {speed.launch:.3g} s, {LAUNCH[1] * 1000:.3g} ms a layer and pass")
    if speed.transfer:
        link = f", {stage.network * 8 / 1e9:.3g} Gbit/s between hosts" if stage.network else ""
        yield Evidence(
            text=f"sending: at most {speed.transfer:.3g} s at {round(100 * LINK_USE[0])} % of the links{link}"
        )


def _fixes(stage: StageTime) -> Iterator[Fix]:
    speed = stage.speed
    if speed.transfer > speed.compute:
        yield Fix("Send less: no ZeRO-3 over this link (ZeRO-2 with more accumulation), LoRA, or a faster network")
    yield Fix("Train on fewer tokens, with a smaller model, or with LoRA")
    yield Fix("More or faster cards: all ranks wait for the slowest")
