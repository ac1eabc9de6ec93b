"""What a host has for a training: memory of its smallest card, in all and free now, and of the host for its ranks."""

from __future__ import annotations

from dataclasses import dataclass

from dsdoctor.checks.amounts import MIB, amount
from dsdoctor.checks.engine import NothingToJudge
from dsdoctor.checks.job_gpus import job_gpus
from dsdoctor.cluster import Cluster, HostEntry
from dsdoctor.facts import FactUnavailable, Gpu, HostFacts
from dsdoctor.jobs.forecast.memory import MemoryForecast, forecast
from dsdoctor.jobs.forecast.outlook import Outlook, UnknownJobError, names_model, outlooks
from dsdoctor.jobs.forecast.parts import Part
from dsdoctor.jobs.job import ResolvedJob
from dsdoctor.report.model import Evidence

# A rank's own memory beside what is offloaded: its program with torch's CUDA libraries. Of a recorded run with all
# its weights on the card, 2.21 GB for two ranks and 1.32 GB for one.
PROGRAM = 1_100_000_000


def ask_model(job: ResolvedJob) -> None:
    """Raises NothingToJudge for a job that names no model: there is nothing to forecast from."""
    if not names_model(job):
        raise NothingToJudge("the job names no model by a path")


@dataclass(frozen=True)
class Need:
    """A stage's outlook with the memory that it needs."""

    outlook: Outlook
    memory: MemoryForecast


def needs(job: ResolvedJob, cluster: Cluster) -> tuple[Need, ...]:
    """What the job's stages need, the largest first.

    Raises:
        FactUnavailable: it cannot be told what the job trains; the reason says why.
    """
    try:
        found = [Need(each, forecast(each.shape, each.training, each.parameters)) for each in outlooks(job, cluster)]
    except UnknownJobError as unknown:
        raise FactUnavailable("model", str(unknown)) from None
    return tuple(sorted(found, key=lambda need: -need.memory.tensors))


@dataclass(frozen=True)
class CardRoom:
    """The smallest card that the job uses on a host, in bytes."""

    gpu: Gpu
    total: int
    free: int


def card_room(host: HostFacts, entry: HostEntry) -> CardRoom | None:
    """The room on the host's smallest card, None where it has none.

    Raises:
        FactUnavailable: the cards could not be asked.
    """
    rooms = []
    for gpu in job_gpus(host, entry):
        if gpu.memory_mib:
            total = (gpu.memory_mib - (gpu.memory_reserved_mib or 0)) * MIB
            rooms.append(CardRoom(gpu, total, total - (gpu.memory_used_mib or 0) * MIB))
    return min(rooms, key=lambda room: (room.total, room.free), default=None)


def ram_limit(host: HostFacts) -> int:
    """The bytes that processes on the host may use. Raises FactUnavailable."""
    return host.memory.limit_bytes


def shown(memory: MemoryForecast) -> str:
    """`30 to 35 GiB`."""
    least, most = amount(memory.least), amount(memory.most)
    first, _, unit = least.partition(" ")
    return f"{first} to {most}" if most.endswith(f" {unit}") else f"{least} to {most}"


def evidence(need: Need, parts: tuple[Part, ...]) -> list[Evidence]:
    """The parts of a forecast, one line each, and where the model's sizes come from."""
    lines = [Evidence(text=f"{part.name}: {amount(part.size)} ({part.because})") for part in parts]
    model = f"{need.outlook.shape.parameters:,} parameters ({need.outlook.shape.model_type})"
    return [Evidence(text=model, source=need.outlook.source), *lines]
