"""What a person has set on a host outside of the job, judged against that host: is it right there, or beaten.

It comes from the session in which every command on the host begins (sshd, /etc/environment, ~/.bashrc, setup lines),
from NCCL's own files, and for DeepSpeed from `.deepspeed_env`. What is right there wins over what is derived; what is
wrong is contradicted aloud. One rule a kind of variable.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from dsdoctor.addresses import network_of, overlap, subnets
from dsdoctor.checks.env_values import judge_value, reads_as
from dsdoctor.checks.extension_cache import shared_with, unlike
from dsdoctor.checks.ib_use import active_ports, selected_ports
from dsdoctor.checks.ifname import select
from dsdoctor.checks.interfaces import private_bridge
from dsdoctor.checks.nccl_use import nccl_version
from dsdoctor.checks.tables import variables
from dsdoctor.checks.variable_names import judge
from dsdoctor.checks.visible_devices import visible
from dsdoctor.cluster import Cluster, Member
from dsdoctor.facts import FactUnavailable, HostFacts, Interface
from dsdoctor.plan.address import Link
from dsdoctor.plan.model import EnvVar

# What changes training or communication, or holds what such programs are found by; the rest of a session is passed on
# and not shown.
INTEREST = re.compile(
    r"NCCL|N{1,2}C{1,2}L{0,2}C?L?_|TORCH|PYTORCH|GLOO|CUDA|NVIDIA_|OMP_|MKL_|KMP_|GOMP_|OPENBLAS_|MASTER_|RANK$|"
    r"WORLD_SIZE$|LOCAL_|NODE_RANK$|NNODES$|NPROC_PER_NODE$|GROUP_|ROLE_|PET_|HF_|HUGGING|TRANSFORMERS|TOKENIZERS_|"
    r"DATASETS_|ACCELERATE|FSDP|WANDB|MLFLOW|DS_|DEEPSPEED|UCX_|UCC_|FI_|IBV_|PYTHON|LD_LIBRARY_PATH$|LD_PRELOAD$|"
    r"PATH$|TRITON_|BNB_|\w+_(?:proxy|PROXY)$"
)
# Where a rank is: the engine tells each rank its own, and what an earlier launch left behind is of another job.
_LEFT_OVER = re.compile(
    r"MASTER_(?:ADDR|PORT)|(?:LOCAL_|NODE_|GROUP_|ROLE_|CROSS_)?RANK|(?:LOCAL_|GROUP_|ROLE_)?WORLD_SIZE|LOCAL_SIZE|"
    r"ROLE_NAME|NNODES|NPROC_PER_NODE|PET_\w+|TORCHELASTIC_(?:RUN_ID|USE_AGENT_STORE|RESTART_COUNT|MAX_RESTARTS|"
    r"ERROR_FILE)"
)
_MERGED = frozenset({"PATH", "no_proxy", "NO_PROXY"})  # a derived value holds what was there before
_IFNAMES = ("NCCL_SOCKET_IFNAME", "NCCL_OOB_NET_IFNAME", "GLOO_SOCKET_IFNAME")


@dataclass(frozen=True)
class Place:
    """A host on which a value is judged: its facts, its way to the master, and what was derived for it."""

    member: Member
    facts: HostFacts
    cluster: Cluster
    link: Link | None  # None on the only host of a job
    infiniband: bool  # the job goes over InfiniBand
    infiniband_reason: str
    derived: Mapping[str, EnvVar]

    @property
    def alone(self) -> bool:
        """Whether all ranks run on this host."""
        return len(self.cluster) == 1


@dataclass(frozen=True)
class Verdict:
    """What is to be said of a value: why it is beaten, or with `kept` only what it costs.

    `instead` is a name and a value that take its place.
    """

    reason: str
    kept: bool = False
    aloud: bool = True
    instead: tuple[str, str] | None = None


def verdict_on(name: str, value: str, place: Place) -> Verdict | None:
    """What is to be said of a value on a host; None when it is as good as a derived one."""
    if _LEFT_OVER.fullmatch(name):
        return Verdict("it is left over from another launch; each rank gets its own")
    if name in _MERGED:
        return Verdict("", aloud=False) if name in place.derived else None
    rule = _RULES.get(name)
    try:
        return (
            _renamed(name, value, place) or (rule(name, value, place) if rule else None) or _refused(name, value, place)
        )
    except FactUnavailable:
        return None  # what is not known of a host is not held against a value


def _renamed(name: str, value: str, place: Place) -> Verdict | None:
    """An old name, which torch will stop reading one day, and of which it warns at every start."""
    if name not in variables().renamed:
        return None
    judgement = judge(name, place.facts)
    if judgement is None or judgement[1] is None:
        return None
    return Verdict(judgement[0], instead=(judgement[1], value))


def _refused(name: str, value: str, place: Place) -> Verdict | None:
    """A value that torch or NCCL stop at."""
    problem = judge_value(name, value, nccl_version(place.facts))
    if problem is None or problem.severity.value != "error":
        return None
    instead = None if problem.wanted is None else (name, problem.wanted)
    return Verdict(problem.message.removeprefix(f"{name}={value}: "), instead=instead)


def _interface(name: str, value: str, place: Place) -> Verdict | None:
    """A name of an interface: it must be there, usable, and lead to other hosts of the job."""
    network = place.facts.network
    selected = select("GLOO_SOCKET_IFNAME" if name.startswith("GLOO") else "NCCL_SOCKET_IFNAME", value, network)
    if selected is None:
        return Verdict("a value so short is not read", aloud=bool(value))
    if selected.problems:
        return Verdict("; ".join(selected.problems))
    if place.alone or place.link is None:
        return None
    if all(interface.loopback for interface in selected.usable):
        return Verdict("it is the loopback interface, by which no other host can be reached")
    if any(one.name == place.link.device or _leads_to_others(one, place) for one in selected.usable):
        return None
    names = ", ".join(one.name for one in selected.usable)
    return Verdict(f"{names} is in no network with another host of the job")


def _leads_to_others(interface: Interface, place: Place) -> bool:
    own = list(subnets(interface))
    network = network_of(place.member)
    if network is None or private_bridge(network, interface):
        return False
    for other in place.cluster:
        theirs = network_of(other)
        if other is place.member or theirs is None:
            continue
        for there in theirs.interfaces:
            if not private_bridge(theirs, there) and any(overlap(a, b) for a in own for b in subnets(there)):
                return True
    return False


def _infiniband_switch(name: str, value: str, place: Place) -> Verdict | None:
    if place.alone or place.infiniband or name not in place.derived or reads_as(value) != 0:
        return None
    return Verdict(place.infiniband_reason)


def _adapters(name: str, value: str, place: Place) -> Verdict | None:
    if place.alone or not place.infiniband or selected_ports(place.facts.infiniband, value):
        return None
    there = ", ".join(map(str, active_ports(place.facts.infiniband)))
    return Verdict(f"it selects no active port of this host; there are {there}")


def _peer_to_peer(name: str, value: str, place: Place) -> Verdict | None:
    """NCCL_P2P_DISABLE: needed where the cards do not reach each other, only slow where they do."""
    needed = place.derived.get(name)
    if needed is not None:
        return Verdict(needed.because) if reads_as(value) == 0 else None
    gpu, count = place.facts.gpu, place.member.entry.processes
    if reads_as(value) == 0 or count < 2 or len(gpu.gpus) < 2:
        return None
    if gpu.p2p_read and all(status == 0 for row in gpu.p2p_read for status in row if status is not None):
        return Verdict("the GPUs of this host reach each other's memory, so it only costs speed", kept=True)
    return None


def _devices(name: str, value: str, place: Place) -> Verdict | None:
    """CUDA_VISIBLE_DEVICES: as many cards as there are ranks, and those of --include where it says which."""
    entry, gpus = place.member.entry, place.facts.gpu.gpus
    if not gpus or (value.startswith("GPU-") and not all(gpu.uuid for gpu in gpus)):
        return None
    seen = visible(value, [gpu.uuid for gpu in gpus])
    if seen is None:
        return None  # parts of divided cards
    shown = f"it shows GPU {', '.join(map(str, seen))}" if seen else "it shows no GPU"
    if entry.devices is not None:
        if seen == list(entry.devices):
            return None
        return Verdict(f"{shown}, and GPU {', '.join(map(str, entry.devices))} are chosen by --include or --exclude")
    if len(seen) == entry.slots or (len(seen) > entry.slots and name not in place.derived):
        return None
    ranks = "1 rank is" if entry.slots == 1 else f"{entry.slots} ranks are"
    return Verdict(f"{shown} of {len(gpus)}, and {ranks} to run there")


def _device_order(name: str, value: str, place: Place) -> Verdict | None:
    wanted = place.derived.get(name)
    return Verdict(wanted.because) if wanted is not None and wanted.value != value else None


def _extension_folder(name: str, value: str, place: Place) -> Verdict | None:
    """TORCH_EXTENSIONS_DIR: not a folder in which hosts of other kinds build, too."""
    if name not in place.derived or posixpath.normpath(value) != posixpath.normpath(place.facts.extensions.folder):
        return None
    others = [other.name for other in shared_with(place.facts, place.cluster) if unlike(place.facts, other)]
    if not others:
        return None
    return Verdict(f"{', '.join(others[:5])} would build there as well, for another kind of host")


_RULES: Mapping[str, Callable[[str, str, Place], Verdict | None]] = {
    **dict.fromkeys(_IFNAMES, _interface),
    "NCCL_IB_DISABLE": _infiniband_switch,
    "NCCL_IB_HCA": _adapters,
    "NCCL_P2P_DISABLE": _peer_to_peer,
    "CUDA_VISIBLE_DEVICES": _devices,
    "CUDA_DEVICE_ORDER": _device_order,
    "TORCH_EXTENSIONS_DIR": _extension_folder,
}
