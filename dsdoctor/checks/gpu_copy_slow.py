"""Copies between two GPUs are slower than their slots promise, measured."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence

from dsdoctor.checks.engine import check
from dsdoctor.checks.remedy import on_host
from dsdoctor.checks.tried import tried
from dsdoctor.cluster import HostEntry
from dsdoctor.facts import DeepCopy, Gpu, HostFacts
from dsdoctor.report.model import Evidence, Finding, Fix, Severity

# GB/s of one lane by PCI Express generation, coding taken off (PCI-SIG: 2.5, 5, 8, 16, 32, 64 GT/s).
_LANE = {1: 0.25, 2: 0.5, 3: 0.985, 4: 1.969, 5: 3.938, 6: 7.563}
_OF_THE_SLOT = 0.2  # of what the narrower slot carries; through the host's memory data goes two such ways
_OF_THE_OTHERS = 0.25  # of the median of all copies on the host


@check(severity=Severity.WARNING, since="0.1", trial="deep")
def gpu_copy_slow(host: HostFacts, entry: HostEntry) -> Iterator[Finding]:
    """Copies between two GPUs are much slower than their slots, or the host's other pairs; only with `--deep`.

    ## Why it matters
    Every all-reduce on the host waits for its slowest pair. A riser that fell back to one lane, a card behind a slow
    switch, or a processor that copies between its sockets by itself makes all GPUs as slow as that one.

    ## How to fix it
    Look at the link's width and generation under load, put the card into another slot, or leave it out.

    ## Source
    64 MiB copied four times each way, the fastest counts; the slots' generation and width are NVML's.
    """
    deep = tried(host)
    if deep is None or not deep.copies:
        return
    cards = {gpu.index: gpu for gpu in host.gpu.gpus}
    measured = [copy for copy in deep.copies if copy.error is None and copy.gigabytes_per_second is not None]
    for copy in measured:
        reason = _reason(copy, measured, cards.get(copy.source), cards.get(copy.target))
        if reason is not None:
            yield gpu_copy_slow.finding(
                f"GPU {copy.source} sends to GPU {copy.target} with {copy.gigabytes_per_second:.2f} GB/s; {reason}",
                evidence=[Evidence(_told(copy), host.name)],
                fix=[
                    Fix(
                        "Look at the links while the cards are busy, and at what lies between them",
                        (on_host(entry, "nvidia-smi topo -m; nvidia-smi -q -d PERFORMANCE | grep -i -A3 slowdown"),),
                    )
                ],
            )


def _reason(copy: DeepCopy, measured: Sequence[DeepCopy], source: Gpu | None, target: Gpu | None) -> str | None:
    """Why a copy counts as slow."""
    speed = copy.gigabytes_per_second or 0.0
    if source is None or target is None:
        return None
    slots = [_slot(source), _slot(target)]
    promised = min(filter(None, slots)) if all(slots) else None
    if promised is not None and speed < promised * _OF_THE_SLOT * (1 if copy.peer_access else 0.5):
        return f"their slots carry {promised:.0f} GB/s"
    if any(card.nvlinks for card in (source, target)):  # pairs with and without NVLink differ by nature
        return None
    others = [other.gigabytes_per_second or 0.0 for other in measured if other is not copy]
    alike = [other.peer_access == copy.peer_access for other in measured]
    if len(others) >= 5 and all(alike) and speed < _OF_THE_OTHERS * statistics.median(others):
        return f"half of the host's pairs reach {statistics.median(others):.1f} GB/s"
    return None


def _slot(gpu: Gpu) -> float | None:
    """GB/s that card and slot together can carry; None where NVML does not say."""
    lane = _LANE.get(gpu.pcie_generation_max or 0)
    return lane * gpu.pcie_width_max if lane and gpu.pcie_width_max else None


def _told(copy: DeepCopy) -> str:
    way = "peer-to-peer" if copy.peer_access else "through the host's memory"
    return f"GPU {copy.source} to {copy.target}, {way}: {copy.gigabytes_per_second:.2f} GB/s"
