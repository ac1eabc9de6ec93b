"""The GPUs that a job's ranks use, what kind of cards they are, and how they are named in a message."""

from __future__ import annotations

from collections.abc import Iterable

from dsdoctor.checks.context import JobContext
from dsdoctor.cluster import Cluster, HostEntry
from dsdoctor.facts import FactUnavailable, Gpu, GpuFacts, HostFacts

# nvmlBrandType_t of nvml.h 13: Tesla and what came after it in data centers; GeForce and Titan.
_DATA_CENTER, _CONSUMER = frozenset({2, 14}), frozenset({5, 6})


def job_gpus(host: HostFacts, entry: HostEntry) -> tuple[Gpu, ...]:
    """The cards that the host's ranks use and that answer; none where no driver is loaded.

    Raises:
        FactUnavailable: NVML failed, or could not be asked more than names and memory.
    """
    facts = host.gpu
    if facts.status in ("no-library", "driver-not-loaded"):
        return ()
    if facts.status != "ok":
        raise FactUnavailable("gpu", facts.detail or facts.status)
    if facts.via == "nvidia-smi" and facts.gpus:
        raise FactUnavailable("gpu", "the loader finds no libnvidia-ml.so.1, and nvidia-smi was asked for names alone")
    return tuple(gpu for gpu in facts.gpus if wanted(entry, gpu.index) and gpu.error is None)


def wanted(entry: HostEntry, index: int) -> bool:
    """Whether a rank of the job is to use the card of that number."""
    return index in (entry.devices if entry.devices is not None else range(entry.slots))


def ranks_of(cluster: Cluster) -> int:
    """How many ranks the job has on all hosts."""
    return cluster.ranks


def data_center(gpu: Gpu) -> bool:
    """Whether NVML says that the card is made for data centers."""
    return gpu.brand in _DATA_CENTER


def consumer(gpu: Gpu) -> bool:
    """Whether NVML says that the card is a GeForce or a Titan."""
    return gpu.brand in _CONSUMER


def pair_value(facts: GpuFacts, rows: tuple[tuple[int | None, ...], ...], one: Gpu, other: Gpu) -> int | None:
    """What a matrix of NVML's (`p2p_read`, `topology`) says of two cards, None where it says nothing."""
    places = {gpu.index: place for place, gpu in enumerate(facts.gpus)}
    row, column = places.get(one.index), places.get(other.index)
    if row is None or column is None or row >= len(rows) or column >= len(rows[row]):
        return None
    return rows[row][column]


def named(gpus: Iterable[Gpu]) -> str:
    """`GPU 0, 1 (NVIDIA A100-PCIE-40GB)`; cards of several kinds are listed one after the other."""
    kinds: dict[str, list[str]] = {}
    for gpu in gpus:
        kinds.setdefault(gpu.name, []).append(str(gpu.index))
    return "; ".join(f"GPU {', '.join(indexes)} ({name or 'no name'})" for name, indexes in kinds.items())


def variables(host: HostFacts, entry: HostEntry, context: JobContext | None) -> dict[str, str]:
    """The environment that ranks on the host get: the host's own, and the job file's laid over it.

    Raises:
        FactUnavailable: the host's environment is not known.
    """
    inherited = host.environment.variables
    if context is None or context.planned:
        return dict(inherited)
    gone = context.unset(entry, host)
    kept = {name: value for name, value in inherited.items() if name not in gone}
    return {**kept, **context.variables(entry, host)}


def in_virtual_machine(host: HostFacts) -> bool:
    """Whether the processor says that a hypervisor is under it. Raises FactUnavailable."""
    return "hypervisor" in host.cpu.flags


def container(host: HostFacts) -> str | None:
    """The kind of container that the session runs in, None outside of one or where that is not known."""
    try:
        kind = host.container.kind
    except FactUnavailable:
        return None
    return None if kind == "none" else kind
