"""The time that each stage of a job takes on these hosts: the slowest card, the slowest link, the tokens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from dsdoctor.addresses import job_links
from dsdoctor.checks.interfaces import told_speed
from dsdoctor.checks.job_gpus import job_gpus
from dsdoctor.cluster import Cluster
from dsdoctor.facts import FactUnavailable
from dsdoctor.jobs.forecast.outlook import Outlook, UnknownJobError, fitted, outlooks
from dsdoctor.jobs.forecast.speed import Compute, Links, SpeedForecast, card_of, forecast
from dsdoctor.jobs.forecast.tables import Card
from dsdoctor.jobs.forecast.training import training_of
from dsdoctor.jobs.forecast.work import Work, work_of
from dsdoctor.jobs.job import ResolvedJob
from dsdoctor.jobs.paths import named_paths

# Bytes a second of one lane of PCI Express by its generation, one way: 8 and 16 GT/s with 128 of 130 bits (PCI-SIG).
_LANE = {1: 250e6, 2: 500e6, 3: 984.6e6, 4: 1969.2e6, 5: 3938.5e6}


@dataclass(frozen=True)
class StageTime:
    """A stage with the time of its steps and, where its tokens are known, of all of it in seconds."""

    stage: str
    speed: SpeedForecast
    work: Work | None
    slowest: Card
    network: float | None  # bytes a second of the slowest link between hosts

    @property
    def seconds(self) -> tuple[float, float] | None:
        """Least and most, None where the tokens are not known."""
        if self.work is None:
            return None
        return self.speed.seconds(self.work.least)[0], self.speed.seconds(self.work.most)[1]


def durations(job: ResolvedJob, cluster: Cluster) -> tuple[StageTime, ...]:
    """The time of every stage.

    Raises:
        FactUnavailable: the model, the cards or the length of the samples are not known; the reason says which.
    """
    try:
        first = outlooks(job, cluster)[0]
    except UnknownJobError as unknown:
        raise FactUnavailable("model", str(unknown)) from None
    cards = tuple(_cards(cluster))
    if not cards:
        raise FactUnavailable("gpu", "no host has a card that the job would use")
    links = _links(cluster)
    size = _data_bytes(job, cluster)
    return tuple(_stage(job, first, index, cluster, cards, links, size) for index in range(len(job.stages)))


def _stage(
    job: ResolvedJob,
    first: Outlook,
    index: int,
    cluster: Cluster,
    cards: tuple[Card, ...],
    links: Links,
    size: int | None,
) -> StageTime:
    stage = job.stages[index]
    training = fitted(first.shape, training_of(job, stage, cluster.ranks))
    if training.length is None:
        raise FactUnavailable("length", f"stage {stage.name} does not say how long its samples are")
    compute: Compute = "fp32"
    if training.precision != "fp32":
        compute = "bf16" if all(card.bf16 for card in cards) else "fp16"
    speed = forecast(first.shape, training, cards, compute, links)
    slowest = min(cards, key=lambda card: {"fp32": card.fp32, "fp16": card.fp16, "bf16": card.bf16}[compute] or 0.0)
    return StageTime(stage.name, speed, work_of(stage, training, size), slowest, links.network)


def _cards(cluster: Cluster) -> Iterator[Card]:
    """The kinds of cards that the ranks use. Raises FactUnavailable for one whose rates are not known."""
    seen = set()
    for member in cluster:
        if member.facts is None:
            raise FactUnavailable("gpu", f"{member.name} was not examined")
        for gpu in job_gpus(member.facts, member.entry):
            if gpu.name in seen:
                continue
            seen.add(gpu.name)
            card = card_of(gpu.name)
            if card is None:
                raise FactUnavailable("gpu", f"how fast a {gpu.name} computes is not in the table")
            yield card


def _links(cluster: Cluster) -> Links:
    """The slowest link between hosts, and the slowest between a card and its host."""
    speeds = []
    if len(cluster) > 1:
        try:
            speeds = [speed for link in job_links(cluster).values() if (speed := told_speed(link.interface))]
        except FactUnavailable:
            speeds = []
    lanes = []
    for member in cluster.examined:
        if member.facts is None:
            continue
        for gpu in job_gpus(member.facts, member.entry):
            lane = _LANE.get(gpu.pcie_generation_max or 0)
            if lane and gpu.pcie_width_max:
                lanes.append(lane * gpu.pcie_width_max)
    return Links(min(speeds) * 1e6 / 8 if speeds else None, min(lanes, default=None))


def _data_bytes(job: ResolvedJob, cluster: Cluster) -> int | None:
    """The size of the job's data on the first host that has it, None for a job of several stages or without."""
    if len(job.stages) != 1:
        return None  # which part of it each stage reads is not known
    paths = [named.path for named in named_paths(job) if named.role == "data"]
    for member in cluster.examined:
        try:
            found = [member.facts.inputs.find(path) for path in paths] if member.facts else []
        except FactUnavailable:
            continue
        sizes = [path.total_bytes for path in found if path is not None and path.complete]
        if any(sizes):
            return max(sizes)
    return None
