"""The file systems that a job writes to, each once, with what is written there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from dsdoctor.facts import DiskPath, HostFacts


@dataclass(frozen=True)
class Volume:
    """A file system with the paths that were asked about on it. Figures are the lowest that were read."""

    paths: tuple[DiskPath, ...]
    total_bytes: int
    free_bytes: int
    inodes_free: int | None
    source: str

    @property
    def roles(self) -> frozenset[str]:
        """What is written there."""
        return frozenset(role for path in self.paths for role in path.roles)


def volumes(host: HostFacts) -> tuple[Volume, ...]:
    """The file systems whose figures are known and mean something (some network mounts say 0 of everything).

    Raises:
        FactUnavailable: the disks were not looked at.
    """
    groups: dict[tuple[str, str, int], list[DiskPath]] = {}
    for path in host.disk.paths:
        if path.error is None and path.total_bytes > 0:
            groups.setdefault((path.source, path.filesystem, path.total_bytes), []).append(path)
    return tuple(
        Volume(
            paths=tuple(paths),
            total_bytes=total,
            free_bytes=min(path.free_bytes for path in paths),
            inodes_free=min((path.inodes_free for path in paths if path.inodes_free is not None), default=None),
            source=source,
        )
        for (source, _, total), paths in groups.items()
    )


def places(paths: Iterable[DiskPath]) -> str:
    """`home (/home/alice), output (/data/out)`: what lies on a file system, in words."""
    return ", ".join(f"{' and '.join(path.roles)} ({path.path})" if path.roles else path.path for path in paths)
