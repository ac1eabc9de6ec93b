"""torch's cache of extensions: which folder a job's ranks use, and which hosts see the same one."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
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
