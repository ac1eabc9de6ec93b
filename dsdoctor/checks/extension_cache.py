"""torch's cache of extensions: which folder a job's ranks use, and which hosts see the same one."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress

from dsdoctor.checks.context import JobContext
from dsdoctor.cluster import Cluster, HostEntry
from dsdoctor.facts import FactUnavailable, HostFacts

_NETWORK = (
    "nfs",
    "cifs",
    "smb",
    "lustre",
    "gpfs",
    "beegfs",
    "ceph",
    "glusterfs",
    "9p",
    "afs",
    "panfs",
    "wekafs",
    "fuse.",
)

# The flags of /proc/cpuinfo that gcc turns into instructions for -march=native.
_INSTRUCTIONS = re.compile(r"(avx|amx|bmi|fma|f16c|sse4|vaes|gfni|sha|adx|movbe|popcnt|sve|asimd|i8mm|bf16|vpclmul)\w*")


def is_network(filesystem: str) -> bool:
    """Whether a file system of that type may be mounted on several hosts."""
    return filesystem.startswith(_NETWORK)


def folder_of(host: HostFacts, context: JobContext | None, entry: HostEntry) -> str:
    """The folder that the ranks on a host build in: TORCH_EXTENSIONS_DIR as they get it, else what the probe found.

    Raises:
        FactUnavailable: the cache was not looked at.
    """
    facts = host.extensions
    named = None
    if context is not None:
        named = context.variables(entry, host).get("TORCH_EXTENSIONS_DIR")
    with suppress(FactUnavailable):
        named = named or host.environment.variables.get("TORCH_EXTENSIONS_DIR")
    return posixpath.normpath(named) if named and named.startswith("/") else facts.folder


def shared_with(host: HostFacts, cluster: Cluster) -> Iterator[HostFacts]:
    """The other hosts whose cache is the same folder of the same network file system."""
    own = host.extensions
    for member in cluster.examined:
        if member.facts is None or member.facts is host:
            continue
        try:
            other = member.facts.extensions
        except FactUnavailable:
            continue
        same = (own.folder, own.filesystem, own.source) == (other.folder, other.filesystem, other.source)
        if same and is_network(own.filesystem):
            yield member.facts


def _instructions(host: HostFacts) -> frozenset[str]:
    return frozenset(flag for flag in host.cpu.flags if _INSTRUCTIONS.fullmatch(flag))


def _capabilities(host: HostFacts) -> frozenset[str]:
    """The GPUs' compute capabilities; the same for all where TORCH_CUDA_ARCH_LIST says what to build for."""
    with suppress(FactUnavailable):
        if host.environment.variables.get("TORCH_CUDA_ARCH_LIST"):
            return frozenset({"as TORCH_CUDA_ARCH_LIST has it"})
    known = [gpu.compute_capability for gpu in host.gpu.gpus if gpu.compute_capability]
    return frozenset(f"{major}.{minor}" for major, minor in known)


def _libc(host: HostFacts) -> frozenset[str]:
    return frozenset({host.os.libc})


# What a build depends on, in words, and how it is read.
DEPENDS_ON: Mapping[str, Callable[[HostFacts], frozenset[str]]] = {
    "their CPUs' instructions": _instructions,
    "compute capability": _capabilities,
    "their C library": _libc,
}


def unlike(one: HostFacts, other: HostFacts) -> bool:
    """Whether what one host builds may not run on another, as far as that is known."""
    for value_of in DEPENDS_ON.values():
        with suppress(FactUnavailable):
            if value_of(one) != value_of(other):
                return True
    return False
