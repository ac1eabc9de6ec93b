"""What all ranks must have alike is made alike, or the plan says why it cannot be."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dsdoctor.checks.env_values import reads_as
from dsdoctor.checks.rank_settings import EQUAL_FOR_NCCL, EQUAL_FOR_TORCH, TORCH_DEBUG
from dsdoctor.plan.environment import JobWide
from dsdoctor.plan.host_layers import HostLayers
from dsdoctor.plan.model import EnvVar

# A value of one host that is not to be given to all: an address, a path there, a mode that costs or crashes.
_NOT_SPREAD = frozenset({"NCCL_COMM_ID", "NCCL_TUNER_PLUGIN", TORCH_DEBUG})


def made_equal(hosts: Sequence[HostLayers], wide: JobWide) -> Iterator[str]:
    """Make alike what a person has set on some hosts and all ranks must have alike; says what was done."""
    if len(hosts) == 1:
        return
    names = (*(("NCCL_IB_DISABLE", "NCCL_NET", *EQUAL_FOR_NCCL) if wide.gpus else ()), *EQUAL_FOR_TORCH, TORCH_DEBUG)
    for name in names:
        if any(name in host.pinned for host in hosts):
            continue
        got = {host.member.name: host.held(name) for host in hosts}
        values = {given.value if given is not None else None for given in got.values()}
        if len(values) == 1 or (name == TORCH_DEBUG and not any((value or "").upper() == "DETAIL" for value in values)):
            continue
        if name == "NCCL_IB_DISABLE":
            yield from _one_network(hosts, wide)
        elif len(values - {None}) == 1 and name not in _NOT_SPREAD:
            yield _spread(hosts, name)
        else:
            yield _dropped(hosts, name)


def _one_network(hosts: Sequence[HostLayers], wide: JobWide) -> Iterator[str]:
    """InfiniBand that a person switched off on some hosts is off on all: ranks meet in one kind of network."""
    off = [host.member.name for host in hosts if (held := host.held("NCCL_IB_DISABLE")) and reads_as(held.value) != 0]
    if not wide.infiniband or not off or len(off) == len(hosts):
        return
    reason = f"it is set on {', '.join(off)}, and all ranks must use one network"
    for host in hosts:
        if host.member.name not in off:
            host.force(EnvVar("NCCL_IB_DISABLE", "1", reason))
    yield f"NCCL_IB_DISABLE=1 on all hosts: {reason}. --env NCCL_IB_DISABLE=0 uses InfiniBand on all"


def _spread(hosts: Sequence[HostLayers], name: str) -> str:
    holders = [host for host in hosts if host.held(name) is not None]
    held = holders[0].held(name)
    assert held is not None
    names = ", ".join(host.member.name for host in holders)
    reason = f"{names} has it in {held.where}, and all ranks must have it alike"
    for host in hosts:
        if host.held(name) is None:
            host.force(EnvVar(name, held.value, reason))
    return f"{name}={held.value} on all hosts: {reason}"


def _dropped(hosts: Sequence[HostLayers], name: str) -> str:
    told = "; ".join(
        f"{'not set' if (held := host.held(name)) is None else held.value} on {host.member.name}" for host in hosts
    )
    reason = "it differs between the hosts, and all ranks must have it alike"
    stays = []
    for host in hosts:
        held = host.held(name)
        if held is not None and held.layer == "nccl.conf":
            stays.append(f"{held.where} on {host.member.name}")
        elif held is not None:
            host.force(EnvVar(name, "", reason, unset=True))
    if stays:
        where = ", ".join(stays)
        return f"{name} differs between the hosts ({told}); take it out of {where}, or set it in env: of the job file"
    return f"{name} is taken away on all hosts ({told}): {reason}. Set it in env: of the job file"
