"""Processes of a run that nobody guards any more, found by the mark that the plan gives to all of them.

A guardian killed outright is outlived by its keeper and the other way round, and the kernel tells the ranks (TERM) when
the guardian goes. What is left when both are killed at one blow is what takes no notice of TERM, or was forked away.
It is in the guardian's control group, where there was one, or has `DSDOCTOR_RUN=<the run's directory here>` in its
environment, and no living guardian above it.
"""

import os
from typing import Any, Dict, Iterator, List

from dsdoctor.run.guardian import cgroup, process_table
from dsdoctor.run.guardian.spool import read_json

MARK = b"DSDOCTOR_RUN="


def left_behind(guards: str) -> List[int]:
    """The run's processes on this host that no guardian owns; `guards` is the folder of the run's spools."""
    mark = MARK + os.fsencode(os.path.dirname(guards))
    parents = process_table.parents()
    owners = {os.getpid(), *_guardians(guards)}
    grouped = {pid for proofs in _identities(guards) for pid in cgroup.members(proofs)}
    return [
        pid
        for pid in parents
        if (pid in grouped or _has(pid, mark))
        and not _is_below(pid, owners, parents)
        and not _is_below(os.getpid(), {pid}, parents)
    ]


def end_left_behind(guards: str, grace: float) -> int:
    """End them: TERM, and KILL to those left after the grace (seconds). Returns how many there were."""
    found = left_behind(guards)
    if found:
        process_table.end(lambda: left_behind(guards), grace)
    for proofs in _identities(guards):
        cgroup.remove(proofs.get("cgroup"))  # the kernel keeps one with somebody in it
    return len(found)


def _has(pid: int, mark: bytes) -> bool:
    """Whether a process was started with this variable; another user's cannot be read, and is not ours."""
    try:
        with open("/proc/%d/environ" % pid, "rb") as file:
            return mark in file.read().split(b"\0")
    except OSError:
        return False


def _is_below(pid: int, owners: "set[int]", parents: Dict[int, int]) -> bool:
    seen = set()
    while pid in parents and pid not in seen:
        seen.add(pid)
        if pid in owners:
            return True
        pid = parents[pid]
    return False


def _guardians(guards: str) -> "set[int]":
    """The living guardians and keepers of the run on this host, of whatever attempt and under whatever name."""
    proofs = [identity.get(who) or {} for identity in _identities(guards) for who in ("guardian", "keeper")]
    return {int(proof["pid"]) for proof in proofs if process_table.is_alive(proof)}


def _identities(guards: str) -> Iterator[Dict[str, Any]]:
    """Who guarded the run, of every spool in its folder; the folder may be one that other hosts write into, too."""
    for attempt in _listed(guards):
        for host in _listed(os.path.join(guards, attempt)):
            yield read_json(os.path.join(guards, attempt, host), "identity") or {}


def _listed(folder: str) -> List[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []
