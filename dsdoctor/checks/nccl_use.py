"""Whether a job on a host goes through NCCL, and through which version of it."""

from __future__ import annotations

from contextlib import suppress

from packaging.version import InvalidVersion, Version

from dsdoctor.checks.nccl_pin import loaded
from dsdoctor.cluster import Cluster
from dsdoctor.facts import FactUnavailable, HostFacts


def uses_nccl(host: HostFacts) -> bool:
    """Whether the host has GPUs that answer and a torch with CUDA. Raises FactUnavailable when that is not known."""
    return bool(host.gpu.gpus) and host.torch.cuda is not None


def all_use_nccl(cluster: Cluster) -> bool:
    """Whether every host of which it is known goes through NCCL, and there is one."""
    known = []
    for member in cluster.examined:
        with suppress(FactUnavailable):
            known.append(member.facts is not None and uses_nccl(member.facts))
    return bool(known) and all(known)


def nccl_version(host: HostFacts | None) -> Version | None:
    """The version that the host's torch would load, None where that is not known."""
    with suppress(FactUnavailable, InvalidVersion):
        copy = loaded(host) if host else None
        return Version(copy.version or "") if copy else None
    return None
