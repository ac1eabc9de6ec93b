"""A control group for what a guardian starts, where it may make one: who is in it is told by the kernel.

A subreaper has all descendants as long as it lives; a group (version 2) still has them when guardian and keeper were
both killed, whatever they forked, and though they wrote over their environment. Made are groups by root, and by
anybody in a part of the tree that was delegated to them; no controller is turned on, so that no limit changes.
https://docs.kernel.org/admin-guide/cgroup-v2.html
"""

import contextlib
import os
from typing import Any, Dict, List, Optional

from dsdoctor.run.guardian import process_table

PREFIX = "dsdoctor-"


def make() -> Optional[str]:
    """Make a group below this process's own and return its folder; None where that may not be."""
    above = own()
    if above is None:
        return None
    folder = os.path.join(above, PREFIX + os.urandom(8).hex())  # no other run's, also when process ids come again
    try:
        os.mkdir(folder)
        if os.access(os.path.join(folder, "cgroup.procs"), os.W_OK):
            return folder
        os.rmdir(folder)
    except OSError:
        pass
    return None


def join(folder: str) -> None:
    """Move this process into a group; where the kernel refuses that, it stays where it is."""
    with contextlib.suppress(OSError), open(os.path.join(folder, "cgroup.procs"), "wb", buffering=0) as file:
        file.write(b"0")


def members(proofs: Dict[str, Any]) -> List[int]:
    """The processes in the group of a guardian by its identity, as its spool has it; none of another boot's.

    Of processes that are not in this one's process table the kernel says 0.
    """
    folder, proof = str(proofs.get("cgroup") or ""), proofs.get("guardian") or {}
    if not os.path.basename(folder).startswith(PREFIX) or not process_table.is_of_here(proof):
        return []
    try:
        with open(os.path.join(folder, "cgroup.procs"), "rb") as file:
            return [int(word) for word in file.read().split()]
    except (OSError, ValueError):
        return []


def remove(folder: Optional[str]) -> None:
    """Take an empty group away."""
    if folder is not None and os.path.basename(folder).startswith(PREFIX):
        with contextlib.suppress(OSError):
            os.rmdir(folder)


def own() -> Optional[str]:
    """The folder of this process's group in the tree of version 2; None where none is mounted."""
    try:
        with open("/proc/self/cgroup", "rb") as file:
            paths = [line[3:] for line in file.read().splitlines() if line.startswith(b"0::/")]
        with open("/proc/self/mountinfo", "rb") as file:
            mounts = [line.split() for line in file.read().splitlines() if b" - cgroup2 " in line]
    except OSError:
        return None
    for path in paths:
        for mount in mounts:  # proc(5): the fourth field is the folder of the tree that is mounted at the fifth
            below = os.path.relpath(path, mount[3])
            if not below.startswith(b".."):
                return os.fsdecode(os.path.normpath(os.path.join(mount[4], below)))
    return None
