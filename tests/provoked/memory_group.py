"""A control group with a memory limit, of version 1 or 2, whichever of the two has the memory controller here."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests.cluster.footprint import cgroup2_root, remove_group, start_time

PREFIX = "dsdoctor-provoked-"
MIB = 1 << 20

_numbers = itertools.count()


@cache
def controller() -> tuple[Path, str]:
    """Where groups with a memory limit are made, and the name of the file that the limit is written to.

    Raises:
        OSError: nowhere; the memory controller is neither of version 1 nor handed on by the root of version 2.
    """
    for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines():
        _, where, kind, options, *_ = line.split()
        if kind == "cgroup" and "memory" in options.split(","):
            return Path(where), "memory.limit_in_bytes"
    root = cgroup2_root()
    if "memory" not in (root / "cgroup.subtree_control").read_text(encoding="utf-8").split():
        (root / "cgroup.subtree_control").write_text("+memory")
    return root, "memory.max"


@cache
def missing_for_memory_group() -> str:
    """Why no memory limit can be set here, or an empty text."""
    if os.geteuid() != 0:
        return "a memory limit needs root (control groups)"
    try:
        with memory_group(64):
            return ""
    except OSError as error:
        return f"a memory limit needs the memory controller of the control groups: {error}"


@contextlib.contextmanager
def memory_group(mib: int | None) -> Iterator[Path | None]:
    """A group whose processes have that much memory together; it is removed when they have ended. None: no limit.

    Raises:
        OSError: no such group can be made.
    """
    if mib is None:
        yield None
        return
    root, limit = controller()
    erase_leftovers(root)
    group = root / f"{PREFIX}{os.getpid()}-{start_time(os.getpid())}-{next(_numbers)}"
    group.mkdir()
    try:
        (group / limit).write_text(str(mib * MIB))
        with contextlib.suppress(OSError):  # no swap here is no fault
            (group / "memory.swap.max").write_text("0")
        yield group
    finally:
        remove_group(group, 10)


def erase_leftovers(root: Path) -> None:
    """Remove the groups of test processes that were killed; their own processes died with them."""
    for group in root.glob(f"{PREFIX}*-*-*"):
        pid, started, _ = group.name.removeprefix(PREFIX).split("-")
        if start_time(int(pid)) != int(started):
            with contextlib.suppress(OSError):
                group.rmdir()
