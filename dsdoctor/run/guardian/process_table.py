"""Processes of this host as /proc tells them: who descends from whom, and who is still the one that he was."""

import ctypes
import os
import re
import signal
import time
from typing import Any, Callable, Dict, List, Optional

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h


def become_subreaper() -> None:
    """Let orphaned descendants fall to this process instead of init (Linux 3.4 and newer)."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def parents() -> Dict[int, int]:
    """Map every live process to its parent, from /proc; zombies are left out."""
    found = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        fields = stat_of(int(name))
        if fields and fields[0] not in (b"Z", b"X"):
            found[int(name)] = int(fields[1])
    return found


def stat_of(pid: int) -> List[bytes]:
    """The fields of /proc/PID/stat from the state on (proc(5): field 3 is the first here); empty when it is gone."""
    try:
        with open("/proc/%d/stat" % pid, "rb") as file:
            return file.read().rpartition(b")")[2].split()
    except OSError:
        return []


def exit_code(fields: List[bytes]) -> int:
    """How a process ended that nobody has collected yet, from its fields of :func:`stat_of`; signals negative."""
    status = int(fields[49]) if len(fields) > 49 else 0  # proc(5): field 52, as waitpid has it
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status)


def descendants() -> List[int]:
    """All live processes below this one."""
    children: Dict[int, List[int]] = {}
    for pid, parent in parents().items():
        children.setdefault(parent, []).append(pid)
    found: List[int] = []
    todo = [os.getpid()]
    while todo:
        below = children.get(todo.pop(), [])
        found += below
        todo += below
    return found


def reap() -> Dict[int, int]:
    """Collect ended children, our own and those inherited as subreaper: exit codes by process, signals negative."""
    ended: Dict[int, int] = {}
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        ended[pid] = os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status)


def end_descendants(grace: float) -> Dict[int, int]:
    """TERM to every descendant, KILL to those left after the grace (seconds); the exit codes of who was collected."""
    return end(descendants, grace)


def end(find: Callable[[], List[int]], grace: float) -> Dict[int, int]:
    """TERM to the processes that `find` gives, KILL to those it still gives after the grace (seconds).

    Returns the exit codes of children that were collected meanwhile.
    """
    deadline = time.monotonic() + grace
    ended: Dict[int, int] = {}
    send_signal(find(), signal.SIGTERM)
    while find() and time.monotonic() < deadline:
        ended.update(reap())
        time.sleep(0.05)
    for _ in range(100):
        left = find()
        if not left:
            break
        send_signal(left, signal.SIGKILL)
        ended.update(reap())
        time.sleep(0.05)
    ended.update(reap())
    return ended


def send_signal(pids: List[int], number: int) -> None:
    """Signal processes; one that is gone meanwhile is no error. CONT wakes stopped ones, which TERM would not reach."""
    for pid in pids:
        try:
            os.kill(pid, number)
            os.kill(pid, signal.SIGCONT)
        except OSError:
            continue


def oom_kills() -> Optional[int]:
    """How many processes this host's kernel has killed for want of memory since it booted (Linux 4.13 and newer)."""
    try:
        with open("/proc/vmstat", "rb") as file:
            found = re.search(rb"^oom_kill (\d+)$", file.read(), re.MULTILINE)
    except OSError:
        return None
    return int(found.group(1)) if found else None


def boot_id() -> str:
    """What tells this boot of the host from every other one."""
    try:
        with open("/proc/sys/kernel/random/boot_id", "r") as file:
            return file.read().strip()
    except OSError:
        return ""


def namespace() -> str:
    """Which process table this is: a container has one of its own under the same boot id, and a new one at each start.

    The namespace's number may be given again; when its first process started is not.
    """
    first = stat_of(1)
    began = first[19].decode("ascii") if first else ""  # empty where /proc hides others' processes
    try:
        return "%s %s" % (os.readlink("/proc/self/ns/pid"), began)
    except OSError:
        return began


def identity(pid: int) -> Dict[str, Any]:
    """What proves later that a process is this one: its id, when it started (ticks since the boot), and the boot."""
    fields = stat_of(pid)
    return {"pid": pid, "start": int(fields[19]) if fields else -1, "boot": boot_id(), "table": namespace()}


def is_of_here(proof: Dict[str, Any]) -> bool:
    """Whether an :func:`identity` is of this boot and of this process table."""
    return proof.get("boot") == boot_id() and proof.get("table") == namespace()


def is_alive(proof: Dict[str, Any]) -> bool:
    """Whether the very process of an :func:`identity` still runs here; a stranger with the same id is not it."""
    if not is_of_here(proof):
        return False
    fields = stat_of(int(proof.get("pid") or 0))
    return bool(fields) and fields[0] not in (b"Z", b"X") and int(fields[19]) == proof.get("start")
