"""Processes of the host, as /proc shows them."""

from __future__ import annotations

import os

from .files import at, entries, number, read_or


def running(program: str) -> bool | None:
    """Whether a program runs on the host; None where other users' processes, or the host's own, are not seen."""
    if own_namespaces() or not os.path.exists(at("/proc/1/comm")):
        return None
    wanted = program[:15]  # the kernel keeps 15 letters
    return any(read_or(at("/proc/%s/comm" % name)) == wanted for name in entries(at("/proc")) if name.isdigit())


def uptime_seconds() -> float | None:
    """Seconds since the boot, or None. Source: /proc/uptime."""
    words = read_or(at("/proc/uptime")).split()
    return float(words[0]) if words else None


def process_age(folder: str) -> float | None:
    """Seconds since a process was started: field 22 of /proc/PID/stat, in clock ticks since the boot (proc(5))."""
    fields = read_or(folder + "/stat").rpartition(")")[2].split()
    begun, now = number(fields[19]) if len(fields) > 19 else None, uptime_seconds()
    if begun is None or now is None:
        return None
    return max(0.0, round(now - begun / float(os.sysconf("SC_CLK_TCK")), 1))


def holders(path: str) -> list[int]:
    """The processes that have a file open, as far as this user may see; FileBaton keeps its lock open."""
    real = os.path.realpath(path)
    found = []
    for pid in (number(name) for name in entries("/proc")):
        folder = "/proc/%s/fd/" % pid
        for name in entries(folder) if pid else ():
            try:
                if os.readlink(folder + name) == real:
                    found.append(pid)
                    break
            except OSError:
                continue  # closed meanwhile
    return [pid for pid in found if pid is not None]


def own_namespaces() -> bool:
    """Whether this process is apart from its kernel's first processes; a virtual machine made of an image is not.

    The first PID, UTS and IPC namespaces have fixed numbers. Source: PROC_*_INIT_INO in linux/proc_ns.h.
    """
    first = {"pid": "pid:[4026531836]", "uts": "uts:[4026531838]", "ipc": "ipc:[4026531839]"}
    for name, own in first.items():
        try:
            if os.readlink(at("/proc/self/ns/" + name)) != own:
                return True
        except OSError:
            return True  # cannot be told
    return False
