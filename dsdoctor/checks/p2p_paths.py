"""Which pairs of a job's GPUs talk over PCI Express, and which bridges are between them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

from dsdoctor.checks.job_gpus import job_gpus, pair_value
from dsdoctor.cluster import HostEntry
from dsdoctor.facts import Gpu, HostFacts

# nvmlGpuTopologyLevel_t of nvml.h: behind one switch, behind several, ... up to another processor.
SINGLE_SWITCH, SEVERAL_SWITCHES = 10, 20


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
