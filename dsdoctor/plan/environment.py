"""Each host's own environment, derived from its facts, every variable with its reason.

Variables that must be equal on all ranks are derived for the job as a whole; the others may differ from host to host,
which is what no launcher's single exported dictionary can say. Which layer wins over which is said in `layers.py`.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from packaging.version import InvalidVersion, Version

from dsdoctor.checks.extension_cache import shared_with, unlike
from dsdoctor.checks.p2p_paths import claims_falsely
from dsdoctor.cluster import Cluster, Member
from dsdoctor.facts import DeepCopy, DeepFacts, FactUnavailable, Gpu, GpuFacts, HostFacts, InfinibandFacts
from dsdoctor.jobs.job import ResolvedJob
from dsdoctor.plan.address import Link
from dsdoctor.plan.layers import Setting
from dsdoctor.plan.model import EnvVar, PlanError

T = TypeVar("T")

_IN_PART = re.compile(r"\*\*\*|\\x")  # how facts write what is secret, and bytes that are no UTF-8
_OF_THE_SYSTEM = frozenset({"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"})


@dataclass(frozen=True)
class JobWide:
    """What holds for all hosts of a job because the ranks must agree on it."""

    gpus: bool  # every host has GPUs: NCCL; else gloo
    infiniband: bool
    infiniband_reason: str
    ipv6: str = ""  # a host whose interface has IPv4 addresses, too, where the job goes over IPv6


def job_wide(cluster: Cluster, links: Mapping[str, Link | None] | None = None) -> JobWide:
    """Judge what only all hosts together can say: GPUs everywhere or nowhere, InfiniBand everywhere or not at all."""
    gpus = all(_gpus(member) for member in cluster.members)
    ipv6 = _with_both_families(cluster, links or {})
    without = [member.name for member in cluster.members if not _active_ports(member)]
    if without:
        return JobWide(
            gpus, False, f"no active InfiniBand port on {', '.join(without)}; all ranks must use one network", ipv6
        )
    return JobWide(gpus, True, "every host has an active InfiniBand port", ipv6)


def _with_both_families(cluster: Cluster, links: Mapping[str, Link | None]) -> str:
    """The first host that the job reaches by IPv6 on an interface that has IPv4 as well; empty when there is none.

    NCCL takes an interface's first address, IPv4 before IPv6, and ranks of unlike families cannot meet. Source:
    src/misc/socket.cc, NCCL_SOCKET_FAMILY.
    """
    for member in cluster:
        link, facts = links.get(member.name), member.facts
        if link is None or facts is None or ":" not in link.address:
            continue
        interface = facts.network.interface(link.device)
        if interface is not None and any(":" not in held.address for held in interface.addresses):
            return member.name
    return ""


def derive(member: Member, cluster: Cluster, job: ResolvedJob, link: Link | None, wide: JobWide) -> Iterator[EnvVar]:
    """The variables that follow from the facts of one host."""
    facts = member.facts
    if facts is None:
        raise PlanError(f"{member.name} could not be examined, so nothing can be planned for it.")
    yield EnvVar("PYTHONUNBUFFERED", "1", "lines reach the log when they are printed")
    cpu = _ask(lambda: facts.cpu)
    if cpu is not None and cpu.cores:
        allowed = cpu.cores if cpu.quota is None else min(cpu.cores, max(1, int(cpu.quota)))
        threads = max(1, allowed // max(1, member.entry.processes))
        cores = (
            f"{cpu.cores} cores" if allowed == cpu.cores else f"{allowed} of {cpu.cores} cores, by the cgroup's quota,"
        )
        yield EnvVar("OMP_NUM_THREADS", str(threads), f"{cores} for {_ranks(member.entry.processes)}")
    yield from _path(facts)
    yield from _interfaces(len(cluster), link, wide)
    if wide.gpus:
        yield from _gpu_variables(member, facts, cluster, wide)
    elif any(_shares_cache_with_unlike(facts, cluster)):
        yield from _extension_folder(member, facts)
    yield from _proxy(facts, cluster)


def job_settings(job: ResolvedJob, member: Member) -> Iterator[Setting]:
    """The variables that the job file sets, its GPU templates where this host's cards match."""
    names = [gpu.name for gpu in _gpus(member)] + ([member.entry.gpu] if member.entry.gpu else [])
    for kind, variables in job.job.gpu_env.items():
        if any(kind.lower() in name.lower() for name in names):
            for name, value in variables.items():
                yield Setting(name, value, "gpu template", f"gpu_env {kind} of {job.source}", member.name)
    for name, value in job.env.items():
        yield Setting(name, value, "job", f"env of {job.source}", member.name)


def host_settings(member: Member) -> Iterator[Setting]:
    """The variables that the hostfile's words ask for."""
    if member.entry.ifname:
        because = f"ifname= in line {member.entry.line} of the hostfile"
        yield Setting("NCCL_SOCKET_IFNAME", f"={member.entry.ifname}", "host", because, member.name)
        yield Setting("GLOO_SOCKET_IFNAME", member.entry.ifname, "host", because, member.name)


def precision_for(cluster: Cluster) -> tuple[str, str]:
    """The best precision that every GPU of the job has, and why (bf16 needs compute capability 8.0, facts.md §5)."""
    capabilities = [
        (gpu.compute_capability, member.name)
        for member in cluster.members
        for gpu in _gpus(member)
        if gpu.compute_capability
    ]
    if not capabilities or not all(_gpus(member) for member in cluster.members):
        return "fp32", "not every host has a GPU"
    lowest, host = min(capabilities)
    if lowest >= (8, 0):
        return "bf16", "every GPU has compute capability 8.0 or more"
    return "fp16", f"{host} has a GPU of compute capability {lowest[0]}.{lowest[1]}, which has no bf16"


def _shares_cache_with_unlike(facts: HostFacts, cluster: Cluster) -> Iterator[bool]:
    """For every host that sees this one's cache of extensions, whether it is of another kind."""
    for other in _ask(lambda: list(shared_with(facts, cluster))) or ():
        yield unlike(facts, other)


def _path(facts: HostFacts) -> Iterator[EnvVar]:
    """The interpreter's own folder first on PATH; a session that no terminal began knows no activated environment.

    Left alone where that would change nothing, or where the session's value is not known to the letter.
    """
    session = _ask(lambda: facts.environment.variables.get("PATH"))
    python = _ask(lambda: facts.python.executable)
    if not session or not python or not python.startswith("/") or _IN_PART.search(session) or len(session) > 8192:
        return
    folder, folders = posixpath.dirname(python), session.split(":")
    if folder == folders[0] or (folder in _OF_THE_SYSTEM and folder in folders):
        return
    because = "programs of the job's Python (ninja, deepspeed, accelerate) are found, and before others of their name"
    yield EnvVar("PATH", f"{folder}:{session}", because)


def _interfaces(hosts: int, link: Link | None, wide: JobWide) -> Iterator[EnvVar]:
    if hosts == 1:
        yield EnvVar("GLOO_SOCKET_IFNAME", "lo", "all ranks run on this host; its name may resolve to anything")
        return
    if link is None:
        return
    yield EnvVar("GLOO_SOCKET_IFNAME", link.device, link.because)
    yield EnvVar("NCCL_SOCKET_IFNAME", f"={link.device}", f"{link.because}; = makes the name exact")
    if wide.ipv6:
        because = f"the hosts reach each other by IPv6, and the interface of {wide.ipv6} has an IPv4 address, too"
        yield EnvVar("NCCL_SOCKET_FAMILY", "AF_INET6", because)


def _gpu_variables(member: Member, facts: HostFacts, cluster: Cluster, wide: JobWide) -> Iterator[EnvVar]:
    gpus = _gpus(member)
    yield EnvVar("CUDA_DEVICE_ORDER", "PCI_BUS_ID", "GPU numbers are those of nvidia-smi")
    devices = member.entry.devices or tuple(range(member.entry.slots))
    if member.entry.devices is not None or member.entry.slots < len(gpus):
        yield EnvVar(
            "CUDA_VISIBLE_DEVICES", ",".join(map(str, devices)), f"{len(devices)} of {len(gpus)} GPUs are for this job"
        )
    yield EnvVar("NCCL_DEBUG", "WARN", "a failure then prints its reason; quiet otherwise")
    blocked = _blocked_pair(_ask(lambda: facts.gpu), devices)
    if blocked:
        yield EnvVar("NCCL_P2P_DISABLE", "1", f"GPUs {blocked[0]} and {blocked[1]} cannot reach each other's memory")
    elif len(devices) > 1 and (driver := claims_falsely(facts, [gpu for gpu in gpus if gpu.index in devices])):
        because = f"driver {driver} claims peer-to-peer between GeForce cards that have none, and it hangs"
        yield EnvVar("NCCL_P2P_DISABLE", "1", because)
    elif broken := _broken_copy(_ask(lambda: facts.deep), devices):
        because = (
            f"what GPU {broken.source} copied into GPU {broken.target} directly arrived wrong in the trial (--deep)"
        )
        yield EnvVar("NCCL_P2P_DISABLE", "1", because)
    if not wide.infiniband:
        yield EnvVar("NCCL_IB_DISABLE", "1", wide.infiniband_reason)
    elif len(cluster) > 1:
        ports = ",".join(f"{device}:{port}" for device, port in _active_ports(member))
        yield EnvVar("NCCL_IB_HCA", f"={ports}", "the active ports of this host; = makes the names exact")
    capabilities = sorted({gpu.compute_capability for gpu in gpus if gpu.compute_capability})
    if capabilities:
        text = ";".join(f"{major}.{minor}" for major, minor in capabilities)
        yield EnvVar("TORCH_CUDA_ARCH_LIST", text, "ops are built for this host's GPUs and no others")
    yield from _extension_folder(member, facts)
    yield from _flight_recorder(facts)


def _extension_folder(member: Member, facts: HostFacts) -> Iterator[EnvVar]:
    home = _ask(lambda: facts.environment.variables.get("HOME"))
    torch = _ask(lambda: facts.torch.version)
    if home and torch:
        build = re.sub(r"[^A-Za-z0-9.+_-]", "_", f"{member.name}-{torch}")
        folder = f"{home}/.cache/dsdoctor/torch_extensions/{build}"
        yield EnvVar("TORCH_EXTENSIONS_DIR", folder, "ops of unlike hosts or builds must not share one cache")


def _flight_recorder(facts: HostFacts) -> Iterator[EnvVar]:
    torch = _ask(lambda: facts.torch.version)
    # The new name is read by torch 2.13 (facts.md §7); older ones know the alias, which 2.13 still accepts.
    name = "TORCH_FR_BUFFER_SIZE" if _at_least(torch, "2.13") else "TORCH_NCCL_TRACE_BUFFER_SIZE"
    yield EnvVar(name, "2000", "the flight recorder is on: a timeout then shows which collective hung")
    yield EnvVar("TORCH_NCCL_DUMP_ON_TIMEOUT", "1", "a timeout writes the flight recorder's record")


def _ranks(number: int) -> str:
    return "1 rank" if number == 1 else f"{number} ranks"


def _proxy(facts: HostFacts, cluster: Cluster) -> Iterator[EnvVar]:
    variables: Mapping[str, str] = _ask(lambda: facts.environment.variables) or {}
    proxies = [name for name in variables if name.lower() in ("http_proxy", "https_proxy", "all_proxy")]
    if not proxies:
        return
    old = variables.get("no_proxy") or variables.get("NO_PROXY") or ""
    hosts = [member.name for member in cluster.members]
    value = ",".join(dict.fromkeys([*filter(None, old.split(",")), *hosts, "localhost", "127.0.0.1"]))
    for name in ("no_proxy", "NO_PROXY"):
        yield EnvVar(name, value, f"{', '.join(sorted(proxies))} must not catch traffic between the hosts")


def _gpus(member: Member) -> tuple[Gpu, ...]:
    facts = member.facts
    return () if facts is None else (_ask(lambda: facts.gpu.gpus) or ())


def _active_ports(member: Member) -> list[tuple[str, int]]:
    facts = member.facts
    infiniband: InfinibandFacts | None = None if facts is None else _ask(lambda: facts.infiniband)
    if infiniband is None:
        return []
    return [
        (device.name, port.port) for device in infiniband.devices for port in device.ports if port.state == "ACTIVE"
    ]


def _blocked_pair(gpu: GpuFacts | None, devices: tuple[int, ...]) -> tuple[int, int] | None:
    """The first two of the job's GPUs between which NVML says that peer reads do not work."""
    if gpu is None:
        return None
    for first in devices:
        for second in devices:
            if first < second < len(gpu.p2p_read) and gpu.p2p_read[first][second] not in (0, None):
                return first, second
    return None


def _broken_copy(deep: DeepFacts | None, devices: tuple[int, ...]) -> DeepCopy | None:
    """The first copy between two of the job's GPUs that went from one to the other directly and arrived wrong."""
    for copy in deep.copies if deep is not None else ():
        if copy.peer_access and copy.wrong and {copy.source, copy.target} <= set(devices):
            return copy
    return None


def _at_least(version: str | None, wanted: str) -> bool:
    try:
        return version is not None and Version(version.split("+")[0]) >= Version(wanted)
    except InvalidVersion:
        return False


def _ask(read: Callable[[], T]) -> T | None:
    """A fact, or None where it could not be learnt: a variable that depends on it is then left out."""
    try:
        return read()
    except FactUnavailable:
        return None
