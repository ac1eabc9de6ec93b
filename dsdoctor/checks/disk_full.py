"""A file system that the job writes to is full."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from dsdoctor.checks.amounts import MIB, amount
from dsdoctor.checks.engine import check
from dsdoctor.checks.remedy import on_host
from dsdoctor.checks.volumes import Volume, places, volumes
from dsdoctor.cluster import HostEntry
from dsdoctor.facts import HostFacts
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped

FULL_BYTES, FULL_INODES = 16 * MIB, 16


def is_full(volume: Volume) -> bool:
    """Whether hardly anything can be written any more: no room, or no inode for another file."""
    return volume.free_bytes < FULL_BYTES or (volume.inodes_free is not None and volume.inodes_free < FULL_INODES)


@check(severity=Severity.ERROR, since="0.1")
def disk_full(host: HostFacts, entry: HostEntry) -> Iterator[Finding | Skipped]:
    """A file system that every job writes to (home, temporary files, caches, output) has no room or no inode left.

    ## Why it matters
    "OSError: [Errno 28] No space left on device", when a checkpoint is written after hours, or at once when Python
    makes a temporary file. Without inodes the same is said although `df -h` shows gigabytes: a cache of many small
    files has used them up.

    ## How to fix it
    Remove what nobody needs; old checkpoints and the caches of Hugging Face, pip and conda are the usual ones.

    ## Source
    statvfs(3) for the job's user. Quotas are not seen by it.
    """
    for volume in volumes(host):
        if not is_full(volume):
            continue
        path = shlex.quote(_existing(volume))
        no_room = volume.free_bytes < FULL_BYTES
        what = f"{amount(volume.free_bytes)} of {amount(volume.total_bytes)}" if no_room else "no inode"
        largest = f"du -xh --max-depth=2 {path} 2>/dev/null | sort -h | tail -20"
        many = f"find {path} -xdev -type d -size +256k 2>/dev/null | head"
        yield disk_full.finding(
            f"the file system of {places(volume.paths)} is full: {what} is free",
            evidence=[Evidence(text=_figures(volume), source=host.name)],
            fix=[
                Fix("See what takes the room", (on_host(entry, largest),))
                if no_room
                else Fix("See which folders hold very many files", (on_host(entry, many),))
            ],
        )


def _existing(volume: Volume) -> str:
    return next((path.path for path in volume.paths if path.exists), volume.paths[0].path)


def _figures(volume: Volume) -> str:
    inodes = "not counted" if volume.inodes_free is None else f"{volume.inodes_free} free"
    source = f" ({volume.source})" if volume.source else ""
    return f"free: {volume.free_bytes} of {volume.total_bytes} bytes{source}; inodes: {inodes}"
