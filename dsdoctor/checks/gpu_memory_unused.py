"""The job saves memory that it has."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from dsdoctor.checks.amounts import amount
from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.room import ask_model, card_room, evidence, needs, shown
from dsdoctor.cluster import Cluster
from dsdoctor.facts import FactUnavailable
from dsdoctor.jobs.forecast.memory import forecast
from dsdoctor.jobs.forecast.training import Training
from dsdoctor.report.model import Finding, Fix, Severity, Skipped

# Of the smallest card, for what the training would need without the saving: it must be there beyond doubt.
_ROOM = 0.8


@check(severity=Severity.INFO, since="0.1")
def gpu_memory_unused(cluster: Cluster, context: JobContext) -> Iterator[Finding | Skipped]:
    """The job pays with time for memory that its cards have anyway.

    ## Why it matters
    Offload moves the states over PCI Express in every step, checkpointing computes a third more, and small
    micro-batches leave the cards waiting for Python.

    ## How to fix it
    Leave the saving out; the finding says how much memory the training needs without it.

    ## Source
    The memory forecast with and without the setting, against the smallest card of all hosts. It is said only where
    the most that the training may need without it is below four fifths of that card.
    """
    ask_model(context.job)
    rooms = []
    for member in cluster.examined:
        try:
            room = card_room(member.facts, member.entry) if member.facts else None
        except FactUnavailable as missing:
            yield gpu_memory_unused.skipped([member.name], str(missing))
            return
        if room is not None:
            rooms.append(room.total)
    if not rooms:
        return
    need = needs(context.job, cluster)[0]
    if not need.memory.complete:
        return
    limit = int(min(rooms) * _ROOM)
    outlook = need.outlook
    for setting, training in _without(outlook.training):
        memory = forecast(outlook.shape, training, outlook.parameters)
        if memory.most <= limit:
            yield gpu_memory_unused.finding(
                f"{setting} is not needed: without it stage {outlook.stage.name} takes {shown(memory)} of the "
                f"{amount(min(rooms))} that the smallest card has",
                evidence=evidence(need, memory.gpu),
                fix=[Fix(f"Leave {setting} out")],
            )
            return


def _without(training: Training) -> Iterator[tuple[str, Training]]:
    """The job without one of its savings, the dearest first."""
    zero = training.zero
    if training.engine == "deepspeed" and "cpu" in (zero.optimizer_on, zero.parameters_on):
        yield "offload", replace(training, zero=replace(zero, optimizer_on="gpu", parameters_on="gpu"))
    if training.checkpointing:
        yield "gradient_checkpointing", replace(training, checkpointing=False)
