"""A GPU is on the bus and does not answer the driver."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.engine import check
from dsdoctor.checks.job_gpus import container, wanted
from dsdoctor.checks.remedy import as_root
from dsdoctor.cluster import HostEntry
from dsdoctor.facts import Gpu, HostFacts
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped

_RESET = "GPU requires reset"
_PERMISSION = "Insufficient Permissions"


@check(severity=Severity.ERROR, since="0.1")
def gpu_lost(host: HostFacts, entry: HostEntry) -> Iterator[Finding | Skipped]:
    """A GPU does not answer: NVML lists it with an error, or it is on the PCI bus and NVML does not list it.

    ## Why it matters
    The rank of that card stops with "invalid device ordinal" or "GPU is lost", or the driver blocks every program that
    asks for any GPU, and the host has to be rebooted in the middle of a run.

    ## How to fix it
    See what the kernel says of the card. One that requires a reset can be reset while nothing runs on it; one that is
    lost comes back only when the host is switched off and on, and its power cables, riser and heat are the suspects.

    ## Source
    NVML's answer for each card (NVML_ERROR_GPU_IS_LOST, NVML_ERROR_RESET_REQUIRED), /sys/bus/pci/devices.
    """
    facts = host.gpu
    if facts.status != "ok":
        return  # driver-not-loaded, nvml-mismatch
    for gpu in facts.gpus:
        if gpu.error is None:
            continue
        ours = wanted(entry, gpu.index)
        yield gpu_lost.finding(
            f"GPU {gpu.index} does not answer: {gpu.error}",
            severity=None if ours else Severity.WARNING,
            evidence=[Evidence(text=f"NVML says of GPU {gpu.index}: {gpu.error}", source=host.name)],
            fix=_fixes(host, entry, gpu),
        )
    yield from _not_listed(host, entry)


def _not_listed(host: HostFacts, entry: HostEntry) -> Iterator[Finding]:
    """Cards that the driver holds on the bus and NVML does not list. A container or a Slurm step may hide them."""
    facts = host.gpu
    if container(host) or any(name.startswith("SLURM_JOB") for name in host.environment.variables):
        return
    listed = {_plain(gpu.pci_bus_id) for gpu in facts.gpus if gpu.pci_bus_id}
    if len(listed) < sum(gpu.error is None for gpu in facts.gpus):
        return  # where a card sits is not known, so none can be missed
    # A card that does not answer has no address; it was named above.
    silent = sum(not gpu.pci_bus_id for gpu in facts.gpus)
    missing = [card for card in host.pci.gpus if card.driver == "nvidia" and _plain(card.address) not in listed]
    if len(missing) <= silent:
        return
    short = entry.devices is None and entry.slots > len(facts.gpus)
    addresses = ", ".join(card.address for card in missing)
    yield gpu_lost.finding(
        f"the driver holds {len(missing)} more card{'' if len(missing) == 1 else 's'} ({addresses}) than NVML lists: "
        "the driver could not start it",
        severity=None if short else Severity.WARNING,
        evidence=[
            Evidence(text=f"/sys/bus/pci/devices: driver nvidia at {addresses}", source=host.name),
            Evidence(text=f"NVML lists {', '.join(sorted(listed)) or 'none'}", source=host.name),
        ],
        fix=[_look(host, entry), _power()],
    )


def _fixes(host: HostFacts, entry: HostEntry, gpu: Gpu) -> Iterator[Fix]:
    if gpu.error == _PERMISSION:
        yield Fix("This user, or this container, may not use the card: ask who runs the host to allow /dev/nvidia*")
        return
    yield _look(host, entry)
    if gpu.error == _RESET:
        reset = as_root(host, entry, f"nvidia-smi --gpu-reset -i {gpu.index}")
        yield Fix("Reset the card; nothing may run on it", (reset,))
    else:
        yield _power()
    left = [other.index for other in host.gpu.gpus if other.error is None and wanted(entry, other.index)]
    if left and wanted(entry, gpu.index):
        yield Fix(f"Leave the card out for now: --include {entry.name}:{','.join(map(str, left))}")


def _look(host: HostFacts, entry: HostEntry) -> Fix:
    return Fix("See what the kernel says of it", (as_root(host, entry, "dmesg | grep -iE 'nvrm|xid'"),))


def _power() -> Fix:
    return Fix("Switch the host off and on again (a reboot may not be enough); look at power cables, riser and heat")


def _plain(address: str) -> str:
    """The address with a domain of 4 digits, in small letters."""
    domain, _, rest = address.lower().partition(":")
    return f"{domain[-4:]}:{rest}"
