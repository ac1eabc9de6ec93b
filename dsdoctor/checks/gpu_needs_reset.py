"""A GPU asks for a reset, or its host for a reboot."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.engine import check
from dsdoctor.checks.job_gpus import container, job_gpus
from dsdoctor.checks.remedy import as_root
from dsdoctor.cluster import HostEntry
from dsdoctor.facts import Gpu, HostFacts
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped

# nvmlDeviceGpuRecoveryAction_t of nvml.h; 5, of an NVLink domain over several hosts, is for who runs that.
_RESET, _REBOOT, _DRAIN, _DRAIN_RESET, _BUS, _SYSTEM = 1, 2, 3, 4, 6, 7
_SAID = {
    _RESET: "it had a fault and works again only after a reset",
    _REBOOT: "it had a fault that may have harmed the system, and wants the host rebooted",
    _DRAIN: "it had a fault, and its peer-to-peer is not to be used any more",
    _DRAIN_RESET: "it had a fault, and wants a reset after what runs on it has ended",
    _BUS: "it had a fault and works again only after its PCI bus is reset",
    _SYSTEM: "it had a fault and works again only after the host is rebooted",
}
_MILDER = (_DRAIN, _DRAIN_RESET)


@check(severity=Severity.ERROR, since="0.1")
def gpu_needs_reset(host: HostFacts, entry: HostEntry) -> Iterator[Finding | Skipped]:
    """The driver says that a GPU of the job has to be reset, or its host rebooted, before it is used again.

    ## Why it matters
    nvidia-smi lists the card as ever. The program that is started on it fails at its first allocation, or hangs.

    ## How to fix it
    End what runs on the card and reset it; reboot where the driver asks for that.

    ## Source
    NVML's field NVML_FI_DEV_GET_GPU_RECOVERY_ACTION (driver 570 and newer); NVIDIA's "GPU Memory Error Management",
    "Error Recovery and Response Flags".
    """
    for gpu in job_gpus(host, entry):
        said = _SAID.get(gpu.recovery_action or 0)
        if said is None:
            continue
        yield gpu_needs_reset.finding(
            f"GPU {gpu.index} ({gpu.name}): {said}",
            severity=Severity.WARNING if gpu.recovery_action in _MILDER else None,
            evidence=[
                Evidence(
                    text=f"recovery action of GPU {gpu.index}: {gpu.recovery_action}, 0 is wanted", source=host.name
                )
            ],
            fix=_fixes(host, entry, gpu),
        )


def _fixes(host: HostFacts, entry: HostEntry, gpu: Gpu) -> Iterator[Fix]:
    if container(host):
        yield Fix("Have it done by whoever runs the machine around this container")
    elif gpu.recovery_action in (_REBOOT, _SYSTEM):
        yield Fix("Reboot the host", (as_root(host, entry, "reboot"),))
    else:
        reset = as_root(host, entry, f"nvidia-smi --gpu-reset -i {gpu.index}")
        yield Fix("End what runs on the card, and reset it", (reset,))
    yield Fix(f"Leave the card out until then: --exclude {entry.name}:{gpu.index}")
