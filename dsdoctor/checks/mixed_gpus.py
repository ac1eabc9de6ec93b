"""The job's GPUs are of several kinds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from dsdoctor.checks.engine import check
from dsdoctor.checks.gpus_by_name import by_name
from dsdoctor.cluster import Cluster
from dsdoctor.facts import Gpu
from dsdoctor.jobs.forecast.speed import card_of
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped

_BF16 = (8, 0)  # CUDA C++ Programming Guide, arithmetic instructions by compute capability


@dataclass(frozen=True)
class _Kind:
    """Cards of one name: where they are, and how many."""

    name: str
    cards: tuple[Gpu, ...]
    hosts: tuple[str, ...]

    @property
    def memory_mib(self) -> int | None:
        known = [gpu.memory_mib for gpu in self.cards if gpu.memory_mib]
        return min(known, default=None)

    @property
    def capability(self) -> tuple[int, int] | None:
        return next((gpu.compute_capability for gpu in self.cards if gpu.compute_capability), None)


@check(severity=Severity.INFO, since="0.1")
def mixed_gpus(cluster: Cluster) -> Iterator[Finding | Skipped]:
    """The job runs on GPUs of several kinds, on one host or on several.

    ## Why it matters
    It works, and it costs: every step takes as long as on the slowest card, a batch must fit the smallest memory
    (ZeRO gives each rank an equal share, whatever its card holds), and all ranks need one precision that every card
    has. Within a host the cards' numbers may differ too: CUDA counts the fastest first, nvidia-smi by the slot.

    ## How to fix it
    Size the micro-batch for the smallest card, use `precision: auto`, and try the job without the slowest cards: fewer
    equal ones are often faster. CUDA_DEVICE_ORDER=PCI_BUS_ID makes the numbers one; `dsdoctor launch` sets it.

    ## Source
    NVML's name, memory and compute capability of every card that a rank uses; peak rates of NVIDIA's data sheets, where
    they are known (jobs/forecast/data/gpus.yaml). What a card reaches of its peak depends on the program.
    """
    unknown: list[tuple[str, str]] = []
    found = by_name(cluster, unknown)
    for host, reason in unknown:
        yield mixed_gpus.skipped([host], reason)
    kinds = [_Kind(name, tuple(gpu for _, gpu in at), _unique(host for host, _ in at)) for name, at in found.items()]
    if len(kinds) < 2:
        return
    hosts = _unique(host for kind in kinds for host in kind.hosts)
    yield mixed_gpus.finding(
        f"the job's GPUs differ: {', '.join(_said(kind) for kind in kinds)}",
        hosts=hosts,
        evidence=[Evidence(text=text) for text in _costs(kinds)],
        fix=_fixes(kinds, len(hosts)),
    )


def _said(kind: _Kind) -> str:
    return f"{len(kind.cards)} x {kind.name or 'no name'} ({', '.join(kind.hosts)})"


def _costs(kinds: list[_Kind]) -> Iterator[str]:
    for kind in kinds:
        memory = "not known" if kind.memory_mib is None else f"{kind.memory_mib} MiB"
        capability = "not known" if kind.capability is None else ".".join(map(str, kind.capability))
        yield f"{kind.name}: memory {memory}, compute capability {capability}"
    yield f"pace: every step waits for {_pace(kinds)}"
    smallest = _smallest(kinds)
    if smallest is not None and any((kind.memory_mib or 0) > (smallest.memory_mib or 0) for kind in kinds):
        yield f"memory: {smallest.memory_mib} MiB of {smallest.name} hold for every rank"
    older = [kind.name for kind in kinds if kind.capability is not None and kind.capability < _BF16]
    if older and len(older) < len(kinds):
        yield f"precision: {', '.join(older)} has no bf16, so fp16 on every rank"


def _pace(kinds: list[_Kind]) -> str:
    """The slowest kind by the data sheets' peak rates in the precision that all have, and what it costs the fastest."""
    old = any(kind.capability is not None and kind.capability < _BF16 for kind in kinds)
    known = [(card, kind.name) for kind in kinds if (card := card_of(kind.name)) is not None]
    rates = [(value, name) for card, name in known if (value := card.fp16 if old else card.bf16)]
    slowest, fastest = min(rates, default=(0.0, "")), max(rates, default=(0.0, ""))
    if len(rates) < len(kinds) or slowest[0] == fastest[0]:
        return "the slowest card"
    return (
        f"{slowest[1]}, {slowest[0]:g} TFLOPS in {'fp16' if old else 'bf16'} by its data sheet; {fastest[1]} with "
        f"{fastest[0]:g} waits for up to {100 * (1 - slowest[0] / fastest[0]):.0f} % of a step"
    )


def _smallest(kinds: list[_Kind]) -> _Kind | None:
    known = [kind for kind in kinds if kind.memory_mib]
    return min(known, key=lambda kind: kind.memory_mib or 0) if len(known) == len(kinds) else None


def _fixes(kinds: list[_Kind], hosts: int) -> Iterator[Fix]:
    smallest = _smallest(kinds)
    if smallest is not None:
        yield Fix(f"Size the micro-batch for {smallest.name}: {smallest.memory_mib} MiB; the others have room to spare")
    apart = [kind for kind in kinds if not any(set(kind.hosts) & set(other.hosts) for other in kinds if other != kind)]
    if hosts > 1 and apart:
        one = smallest if smallest in apart else apart[-1]
        yield Fix(f"See whether it is faster without {one.name}: --exclude {'@'.join(one.hosts)}")
    yield Fix("GPU numbers as nvidia-smi has them, on every host", env={"CUDA_DEVICE_ORDER": "PCI_BUS_ID"})


def _unique(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))
