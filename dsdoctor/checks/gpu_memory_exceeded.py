"""The training needs more memory than a card has."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.amounts import amount
from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.room import PROGRAM, CardRoom, Need, ask_model, card_room, evidence, needs, ram_limit, shown
from dsdoctor.cluster import Cluster, HostEntry
from dsdoctor.facts import FactUnavailable, HostFacts
from dsdoctor.jobs.forecast.remedies import Remedy, remedies
from dsdoctor.report.model import Finding, Fix, Severity, Skipped

_SHOWN = 5  # ways out


@check(severity=Severity.ERROR, since="0.1")
def gpu_memory_exceeded(
    host: HostFacts, entry: HostEntry, cluster: Cluster, context: JobContext
) -> Iterator[Finding | Skipped]:
    """The training is forecast to need more memory than the host's smallest card has.

    ## Why it matters
    "CUDA out of memory", after the model has been loaded on every host; often not in the first step, but with the
    first long batch, or when the optimizer makes its states.

    ## How to fix it
    What helps is listed in order of what it costs, each with the memory that the training then needs.

    ## Source
    Weights, gradients, optimizer states, buckets and activations, counted from the model's config.json and the job's
    settings. It is an error where even the least does not fit: every tensor that is there at once, and a CUDA context
    of 0.5 GiB. Where the most does not fit (15 % lost to fragmentation, a context of 1.3 GiB) it is a warning. No
    recorded run needed less than the least. The most was chosen by eight of them; of thirty published elsewhere 17 lie
    in the range and 13 above it (older releases keep more: gradients between steps, copies of logits). The tables of
    forecasts against measurements are in benchmarks/README.md.
    """
    ask_model(context.job)
    room = card_room(host, entry)
    need = needs(context.job, cluster)[0]
    memory = need.memory
    if room is None:
        wanted = f"stage {need.outlook.stage.name} needs {shown(memory)} on each card"
        less = "" if memory.complete else ", activations not counted"
        yield gpu_memory_exceeded.skipped([host.name], f"{host.name} has no card to compare with; {wanted}{less}")
        return
    if memory.least <= room.total and not memory.complete:
        stage = need.outlook.stage.name
        reason = f"stage {stage} does not say how long its samples are (max_seq_length, cutoff_len …)"
        yield gpu_memory_exceeded.skipped([host.name], reason)
        return
    if memory.most <= min(room.total, room.free):
        return
    yield gpu_memory_exceeded.finding(
        _message(need, room),
        severity=None if memory.least > room.total else Severity.WARNING,
        evidence=evidence(need, memory.gpu),
        fix=_fixes(need, room, _ram(host, entry)),
    )


def _message(need: Need, room: CardRoom) -> str:
    memory, gpu = need.memory, f"GPU {room.gpu.index} ({room.gpu.name})"
    stage = f"stage {need.outlook.stage.name} needs {shown(memory)} on each card"
    if not memory.complete:
        stage = f"stage {need.outlook.stage.name} needs {amount(memory.least)} on each card, activations not counted"
    if memory.least > room.total:
        return f"{stage}, and {gpu} has {amount(room.total)}"
    if memory.most > room.total:
        return f"{stage}: it may not fit into the {amount(room.total)} of {gpu}"
    now = f"{amount(room.free)} are free now"
    return f"{stage}: it fits into the {amount(room.total)} of {gpu} only when nobody else uses it ({now})"


def _ram(host: HostFacts, entry: HostEntry) -> int | None:
    """What a rank may keep in the host's memory, None where that is not known."""
    try:
        return max(0, ram_limit(host) // max(1, entry.processes) - PROGRAM)
    except FactUnavailable:
        return None


def _way(remedy: Remedy) -> str:
    """The changes in order, each but the last with what is needed after it."""
    *before, last = remedy.steps or ((remedy.title, remedy.memory),)
    return "".join(f"{title} (then {shown(memory)}), and " for title, memory in before) + last[0]


def _fixes(need: Need, room: CardRoom, ram: int | None) -> Iterator[Fix]:
    outlook = need.outlook
    if need.memory.most <= room.total:
        yield Fix("Free the card, or take another one (the check gpu-busy names who is in its memory)")
        return
    found = remedies(outlook.shape, outlook.training, room.total, outlook.parameters, ram)
    for remedy in found[:_SHOWN]:
        host = f", and {amount(remedy.memory.ram)} of the host's memory a rank" if remedy.memory.ram else ""
        yield Fix(f"{_way(remedy)}: {shown(remedy.memory)}{host} ({remedy.cost or 'no loss'})")
    if not found:
        yield Fix("No setting that is known here makes it fit on this card: take a larger card, or a smaller model")
