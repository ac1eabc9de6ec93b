"""A GPU's PCI Express link is narrower or slower than card and slot allow."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from dsdoctor.checks.engine import check
from dsdoctor.checks.job_gpus import data_center, in_virtual_machine, job_gpus, ranks_of
from dsdoctor.checks.remedy import as_root, on_host
from dsdoctor.cluster import Cluster, HostEntry
from dsdoctor.facts import FactUnavailable, Gpu, HostFacts, PciGpu
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped

_IDLE = 0x1  # nvmlClocksEventReasonGpuIdle: an idle card lowers its generation, which is as it should be


@check(severity=Severity.WARNING, since="0.1")
def pcie_link_degraded(host: HostFacts, entry: HostEntry, cluster: Cluster) -> Iterator[Finding | Skipped]:
    """The link of a GPU to its host is much narrower or slower than the card, or than that of the cards beside it.

    ## Why it matters
    Offloading, data loading, and NCCL between cards without NVLink all go over it: with 4 lanes of 16, each of them at
    a quarter of the speed, and every rank waits for this one.

    ## How to fix it
    Seat the card (or its riser) anew, or put it into a slot that has the lanes; look at the BIOS for the slot's speed.

    ## Source
    NVML and sysfs: the link now, the most of card and slot together, the most of the card. Half the lanes on all cards
    alike are how many boards divide them, and an idle card lowers its generation: neither is counted.
    """
    gpus = job_gpus(host, entry)
    for gpu in gpus:
        said = _width(gpu, gpus, host) or _generation(gpu, gpus)
        if not said:
            continue
        card = _on_bus(host, gpu)
        # A desktop's second slot has half the lanes by design, and with one rank little goes over the link.
        slight = not data_center(gpu) and not _quarter(gpu, gpus, card)
        yield pcie_link_degraded.finding(
            f"GPU {gpu.index} ({gpu.name}): {said}",
            severity=Severity.INFO if slight or ranks_of(cluster) < 2 else None,
            evidence=[Evidence(text=text, source=host.name) for text in _seen(gpu, card)],
            fix=_fixes(host, entry, gpu, card),
        )


def _width(gpu: Gpu, gpus: tuple[Gpu, ...], host: HostFacts) -> str | None:
    """What is wrong with the number of lanes. Of a virtual machine only the differences between its cards are true."""
    if not gpu.pcie_width:
        return None
    sisters = [other.pcie_width for other in gpus if other.name == gpu.name and other.pcie_width]
    if gpu.pcie_width < max(sisters):
        return f"its link has {gpu.pcie_width} lanes, that of the same card beside it has {max(sisters)}"
    if in_virtual_machine(host):
        return None
    card = _on_bus(host, gpu)
    if _quarter(gpu, (gpu,), card):
        return f"its link has {gpu.pcie_width} lanes of the card's {_most(gpu, card)}"
    return None


def _most(gpu: Gpu, card: PciGpu | None) -> int:
    """The most lanes that the card has, as far as anything tells."""
    return (card.link.width_max if card else None) or gpu.pcie_width_max or gpu.pcie_width or 0


def _quarter(gpu: Gpu, gpus: tuple[Gpu, ...], card: PciGpu | None) -> bool:
    """Whether the link has a quarter of the lanes, or less, of the card or of a card beside it."""
    sisters = [other.pcie_width or 0 for other in gpus if other.name == gpu.name]
    return bool(gpu.pcie_width) and (gpu.pcie_width or 0) * 4 <= max(_most(gpu, card), *sisters)


def _generation(gpu: Gpu, gpus: tuple[Gpu, ...]) -> str | None:
    """What is wrong with the speed: below the most under load, or below a card of one name in the same state.

    A card that wakes up for this very question may be on its way up: so a process must be on it, or the cards must be
    of a data center, which keep their speed in the fastest state.
    """
    now, most = gpu.pcie_generation, gpu.pcie_generation_max
    if not now or not most or now >= most:
        return None
    awake = gpu.performance_state == 0 and gpu.throttle_reasons is not None and not gpu.throttle_reasons & _IDLE
    if awake and gpu.processes:
        return f"its link runs at PCI Express {now}.0 under load, card and slot can {most}.0"
    faster = [
        other
        for other in gpus
        if other.name == gpu.name
        and data_center(gpu)
        and other.performance_state == gpu.performance_state == 0
        and other.pcie_generation_max == most
        and (other.pcie_generation or 0) > now
    ]
    if faster:
        return f"its link runs at PCI Express {now}.0, that of GPU {faster[0].index} beside it at {most}.0"
    return None


def _on_bus(host: HostFacts, gpu: Gpu) -> PciGpu | None:
    try:
        return host.pci.gpu(gpu.pci_bus_id)
    except FactUnavailable:
        return None


def _seen(gpu: Gpu, card: PciGpu | None) -> Iterator[str]:
    yield (
        f"GPU {gpu.index} at {gpu.pci_bus_id}: {gpu.pcie_width} lanes of {gpu.pcie_width_max} (card and slot), "
        f"generation {gpu.pcie_generation} of {gpu.pcie_generation_max}"
    )
    if card is not None and card.link.width_max:
        yield f"sysfs: the card can {card.link.width_max} lanes, its slot {card.port.width_max or 'not told'}"


def _fixes(host: HostFacts, entry: HostEntry, gpu: Gpu, card: PciGpu | None) -> Iterator[Fix]:
    load = on_host(entry, f"nvidia-smi -q -i {gpu.index} | grep -A 10 'GPU Link Info'")
    yield Fix("Look again while a job runs on it", (load,))
    if card is not None:
        look = as_root(host, entry, f"lspci -vv -s {shlex.quote(card.address)} | grep Lnk")
        yield Fix("See card and slot", (look,))
        if card.port.width_max and gpu.pcie_width and card.port.width_max <= gpu.pcie_width:
            yield Fix(f"The slot itself has {card.port.width_max} lanes: put the card into another one")
            return
    yield Fix("Switch off, seat the card and its riser anew, and look at the slot's settings in the BIOS")
