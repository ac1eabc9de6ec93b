"""InfiniBand cannot read the GPUs' memory directly."""

from __future__ import annotations

import re
from collections.abc import Iterator

from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.job_gpus import container, data_center, job_gpus, variables
from dsdoctor.checks.remedy import as_root
from dsdoctor.cluster import Cluster, HostEntry, Member
from dsdoctor.facts import FactUnavailable, HostFacts
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped

# DMA-BUF does without nvidia-peermem: Linux 5.12 and NVIDIA's open kernel module (NCCL's documentation,
# "Troubleshooting", GPUDirect RDMA).
_DMA_BUF_KERNEL = (5, 12)


@check(severity=Severity.WARNING, since="0.1")
def peermem_missing(
    host: HostFacts, entry: HostEntry, cluster: Cluster, context: JobContext | None
) -> Iterator[Finding | Skipped]:
    """The job's hosts are joined by InfiniBand, and its adapters cannot reach the GPUs' memory directly.

    ## Why it matters
    GPUDirect RDMA is off: NCCL copies everything through the host's memory, at a fraction of the speed of the link.
    It works, so nobody notices.

    ## How to fix it
    Load nvidia-peermem, now and at boot. With the open kernel module and Linux 5.12 or newer DMA-BUF does the same.

    ## Source
    /sys/module, /sys/class/infiniband; NCCL's documentation, "GPUDirect RDMA". Asked only of data-center cards on
    hosts that all have an active InfiniBand port; GeForce cards do not have GPUDirect RDMA.
    """
    if len(cluster) < 2 or not all(_infiniband(member) for member in cluster.examined):
        return
    if variables(host, entry, context).get("NCCL_IB_DISABLE") == "1":
        return
    cards = [gpu for gpu in job_gpus(host, entry) if data_center(gpu)]
    if not cards or host.infiniband.peermem_loaded or _dma_buf(host):
        return
    ports = [f"{device.name}:{port.port}" for device in host.infiniband.devices for port in device.ports]
    yield peermem_missing.finding(
        "nvidia-peermem is not loaded, so InfiniBand reaches the GPUs' memory only through the host's",
        evidence=[
            Evidence(text=f"InfiniBand: {', '.join(ports)}; /sys/module/nvidia_peermem is not there", source=host.name),
            Evidence(text=f"kernel {host.os.kernel}, NVIDIA's {_module(host)} kernel module", source=host.name),
        ],
        fix=_fixes(host, entry),
    )


def _infiniband(member: Member) -> bool:
    """Whether a host has an active port of InfiniBand proper; over Ethernet it may be a cloud's ordinary adapter."""
    if member.facts is None:
        return False
    devices = member.facts.infiniband.devices
    return any(port.state == "ACTIVE" and port.link_layer == "InfiniBand" for item in devices for port in item.ports)


def _dma_buf(host: HostFacts) -> bool:
    kernel = re.match(r"(\d{1,4})\.(\d{1,4})", host.os.kernel)
    if kernel is None or host.driver.open_module is None:
        raise FactUnavailable("driver", "whether DMA-BUF stands in for nvidia-peermem is not known")
    return host.driver.open_module and (int(kernel[1]), int(kernel[2])) >= _DMA_BUF_KERNEL


def _module(host: HostFacts) -> str:
    return "open" if host.driver.open_module else "closed"


def _fixes(host: HostFacts, entry: HostEntry) -> Iterator[Fix]:
    if container(host):
        yield Fix("Have nvidia-peermem loaded on the machine around this container")
        return
    feed = "echo nvidia-peermem"
    commands = (
        as_root(host, entry, "modprobe nvidia-peermem"),
        as_root(host, entry, "tee /etc/modules-load.d/nvidia-peermem.conf", fed_by=feed),
    )
    yield Fix("Load it now and at boot", commands)
