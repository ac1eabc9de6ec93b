"""Which pairs of a job's GPUs talk over PCI Express, and which bridges are between them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

from packaging.version import InvalidVersion, Version

from dsdoctor.checks.job_gpus import consumer, job_gpus, pair_value
from dsdoctor.cluster import HostEntry
from dsdoctor.facts import Gpu, HostFacts

# nvmlGpuTopologyLevel_t of nvml.h: behind one switch, behind several, ... up to another processor.
SINGLE_SWITCH, SEVERAL_SWITCHES = 10, 20

# Drivers before it claim peer-to-peer between GeForce cards of the Ada generation, which then hangs: nccl-tests#117,
# and the version that accelerate waits for before it trusts the driver (its check_cuda_p2p_ib_support).
HONEST_DRIVER, _ADA = "550.40.07", (8, 9)


def pcie_pairs(host: HostFacts, entry: HostEntry) -> Iterator[tuple[Gpu, Gpu]]:
    """The pairs for which NVML says that peer-to-peer works and that have no NVLink. Raises FactUnavailable."""
    gpus = job_gpus(host, entry)
    facts = host.gpu
    for one, other in combinations(gpus, 2):
        linked = bool(one.nvlinks) and bool(other.nvlinks)
        if not linked and pair_value(facts, facts.p2p_read, one, other) == 0:
            yield one, other


def behind_switch(host: HostFacts, pair: tuple[Gpu, Gpu]) -> bool:
    """Whether the two cards can talk through a switch, without the processor."""
    level = pair_value(host.gpu, host.gpu.topology, *pair)
    return level is not None and SINGLE_SWITCH <= level <= SEVERAL_SWITCHES


def claims_falsely(host: HostFacts, gpus: Sequence[Gpu]) -> str | None:
    """The driver's version where it claims a peer-to-peer between two of the cards that they do not have, else None."""
    if sum(ada(gpu) for gpu in gpus) < 2:
        return None
    driver = host.gpu.driver_version
    try:
        return driver if driver is not None and Version(driver) < Version(HONEST_DRIVER) else None
    except InvalidVersion:
        return None


def ada(gpu: Gpu) -> bool:
    """Whether a card is a GeForce of the Ada generation."""
    return consumer(gpu) and gpu.compute_capability == _ADA
