"""On a host with NVSwitches the GPUs are not joined to the fabric."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.engine import check
from dsdoctor.checks.job_gpus import container, job_gpus, named
from dsdoctor.checks.remedy import as_root
from dsdoctor.cluster import HostEntry
from dsdoctor.facts import FactUnavailable, Gpu, HostFacts
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped

# NVML_GPU_FABRIC_STATE_* of nvml.h. Cards before Hopper, and those without an NVSwitch, say "not supported" (0).
_STATES = {1: "not started", 2: "in progress"}
_COMPLETED = 3


@check(severity=Severity.ERROR, since="0.1")
def fabric_manager_down(host: HostFacts, entry: HostEntry) -> Iterator[Finding | Skipped]:
    """The host's GPUs hang on NVSwitches, and the fabric manager has not joined them.

    ## Why it matters
    CUDA fails with error 802, "system not yet initialized", before the first kernel, although nvidia-smi lists every
    card. A single card that could not be joined has no peer-to-peer to the others: NCCL falls back to host memory or
    hangs.

    ## How to fix it
    Start nvidia-fabricmanager; its version must be the driver's, and it stops at once when it is another.

    ## Source
    NVML's fabric state (Hopper and newer); for A100 and V100 the NVSwitches on the PCI bus and the process
    nv-fabricmanager. NVIDIA's Fabric Manager User Guide. Hosts without NVSwitches need none.
    """
    gpus = job_gpus(host, entry)
    waiting = [gpu for gpu in gpus if gpu.fabric_state in _STATES]
    if waiting:
        yield _finding(host, entry, f"{named(waiting)}: joining the NVLink fabric is {_state(waiting[0])}", waiting)
        return
    failed = [gpu for gpu in gpus if gpu.fabric_state == _COMPLETED and gpu.fabric_status]
    if failed:
        yield _finding(
            host, entry, f"{named(failed)}: could not be joined to the NVLink fabric (error {_errors(failed)})", failed
        )
        return
    if not gpus or any(gpu.fabric_state == _COMPLETED for gpu in gpus) or not host.pci.nvswitches:
        return
    running = host.driver.fabric_manager_running
    if running is None:
        raise FactUnavailable("driver", "whether the fabric manager runs cannot be seen from here")
    if not running:
        count = len(host.pci.nvswitches)
        yield _finding(host, entry, f"the host has {count} NVSwitches, and nv-fabricmanager does not run", gpus)


def _finding(host: HostFacts, entry: HostEntry, message: str, gpus: tuple[Gpu, ...] | list[Gpu]) -> Finding:
    return fabric_manager_down.finding(
        message,
        evidence=[Evidence(text=_seen(gpu), source=host.name) for gpu in gpus],
        fix=_fixes(host, entry),
    )


def _seen(gpu: Gpu) -> str:
    state = "not told" if gpu.fabric_state is None else _STATES.get(gpu.fabric_state, str(gpu.fabric_state))
    return f"GPU {gpu.index}: fabric state {state}, status {gpu.fabric_status}, NVLinks up: {gpu.nvlinks}"


def _state(gpu: Gpu) -> str:
    return _STATES[gpu.fabric_state or 1]


def _errors(gpus: list[Gpu]) -> str:
    return ", ".join(sorted({str(gpu.fabric_status) for gpu in gpus}))


def _fixes(host: HostFacts, entry: HostEntry) -> Iterator[Fix]:
    if container(host):
        yield Fix("The fabric manager belongs to the machine around this container: have it started there")
        return
    commands = (
        as_root(host, entry, "systemctl enable --now nvidia-fabricmanager"),
        as_root(host, entry, "journalctl -u nvidia-fabricmanager -n 30 --no-pager"),
    )
    yield Fix("Start it; where it stops again, its log says why", commands)
    version = _driver(host)
    yield Fix(
        f"Its version must be the driver's{f', {version}' if version else ''}: install the package of that version"
    )


def _driver(host: HostFacts) -> str | None:
    try:
        return host.driver.version
    except FactUnavailable:
        return None
