"""What a container keeps from the job, and only its start can give."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress

from dsdoctor.checks.engine import check
from dsdoctor.checks.job_gpus import container
from dsdoctor.checks.outside import start_again
from dsdoctor.cluster import Cluster, HostEntry
from dsdoctor.facts import FactUnavailable, HostFacts
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped

_CAP_SYS_NICE = 23
_NEEDS_NUMA, _FALLS_BACK = (2, 24, 0), (2, 26, 5)  # NCCL: allocates host memory by cuMem; does without by itself
_CUMEM_DRIVER = (12, 6)


@check(severity=Severity.WARNING, since="0.1")
def container_limits(host: HostFacts, entry: HostEntry, cluster: Cluster) -> Iterator[Finding | Skipped]:
    """The session runs in a container that was started without something the job needs: devices, network, capabilities.

    ## Why it matters
    Inside a container it cannot be mended, however much of a root one is there. Without /dev/infiniband NCCL goes over
    sockets and says so only at NCCL_DEBUG=INFO; behind a network of its own it gives the other hosts an address that
    they cannot reach, and they wait.

    ## How to fix it
    Start the container anew with what is missing. Its /dev/shm, locked memory and number of processes are judged by
    low-shm, low-memlock and low-nproc.

    ## Source
    NVIDIA's NCCL guide, "Docker" and NCCL_CUMEM_HOST_ENABLE; docker run's reference.
    """
    if host.container.kind in ("none", "wsl"):
        return
    for find in (_gpus, _verbs, _network, _capability):
        with suppress(FactUnavailable):  # what one of them could not see does not hide the others
            yield from find(host, entry, cluster)


def _gpus(host: HostFacts, entry: HostEntry, cluster: Cluster) -> Iterator[Finding]:
    if not host.driver.loaded or host.gpu.status != "no-library":
        return
    yield container_limits.finding(
        "the machine has an NVIDIA driver, and this container was given neither its library nor a GPU",
        evidence=[Evidence(text=f"NVML: {host.gpu.detail or 'no library'}", source=host.name)],
        fix=[start_again(container(host), "--gpus all", {"kubernetes": "resources.limits: nvidia.com/gpu of the pod"})],
    )


def _verbs(host: HostFacts, entry: HostEntry, cluster: Cluster) -> Iterator[Finding]:
    facts = host.infiniband
    ports = [f"{dev.name}:{port.port}" for dev in facts.devices for port in dev.ports if port.state == "ACTIVE"]
    if not ports or facts.verbs is None or facts.verbs or len(cluster) < 2 or not host.gpu.gpus:
        return
    yield container_limits.finding(
        "the machine has active InfiniBand ports, and this container has no /dev/infiniband: NCCL goes over sockets",
        evidence=[Evidence(text=f"active ports: {', '.join(ports)}; uverbs devices: none", source=host.name)],
        fix=[
            start_again(
                container(host),
                "--device=/dev/infiniband --ulimit memlock=-1 --network=host",
                {"kubernetes": "an RDMA device plugin's resource in the pod's limits"},
            )
        ],
    )


def _network(host: HostFacts, entry: HostEntry, cluster: Cluster) -> Iterator[Finding]:
    """Whether the other hosts know this one by an address that is not the container's."""
    own = {held.address for interface in host.network.interfaces for held in interface.addresses}
    if entry.local or not own:
        return
    known: list[str] = []
    for member in cluster.examined:
        if member.facts is not None and member.facts is not host:
            with suppress(FactUnavailable):
                known += member.facts.network.resolves.get(entry.name, ())
    if not known or own.intersection(known):
        return
    yield container_limits.finding(
        f"the other hosts know this one as {known[0]}, and its container has a network of its own without that "
        "address: ranks elsewhere cannot reach it",
        severity=Severity.ERROR,
        evidence=[Evidence(text=f"addresses in the container: {', '.join(sorted(own))}", source=host.name)],
        fix=[start_again(container(host), "--network=host", {"kubernetes": "hostNetwork: true of the pod"})],
    )


def _capability(host: HostFacts, entry: HostEntry, cluster: Cluster) -> Iterator[Finding]:
    """Whether NCCL would ask for NUMA calls that docker's default profile refuses."""
    capabilities = host.container.capabilities
    copy = next((copy for copy in host.nccl.copies if copy.path == host.nccl.loaded), None)
    version = _numbers(copy.version if copy else None)
    driver = _numbers(host.gpu.cuda_driver_version)
    if host.container.kind not in ("docker", "podman") or capabilities is None or capabilities >> _CAP_SYS_NICE & 1:
        return
    if not _NEEDS_NUMA <= version < _FALLS_BACK or driver < _CUMEM_DRIVER:
        return
    with suppress(FactUnavailable):
        if host.environment.variables.get("NCCL_CUMEM_HOST_ENABLE") == "0":
            return
    assert copy is not None
    yield container_limits.finding(
        f"NCCL {copy.version} needs NUMA calls for its host memory, and this container lacks CAP_SYS_NICE: its start "
        "fails or it crashes",
        evidence=[Evidence(text=f"CapEff: {capabilities:016x}", source=host.name)],
        fix=[
            Fix("Let NCCL do without, as 2.26.5 and newer do by themselves", env={"NCCL_CUMEM_HOST_ENABLE": "0"}),
            start_again(container(host), "--cap-add SYS_NICE"),
        ],
    )


def _numbers(version: str | None) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d{1,6}", version or ""))
