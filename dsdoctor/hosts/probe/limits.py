"""What this session may take: limits, memory, processors, as the system and its cgroups have them."""

from __future__ import annotations

import os

from .files import at, entries, number, read, read_or, unique
from .question import Ask, section

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any


@section
def fact_limits(ask: Ask) -> dict[str, Any]:
    """Source: getrlimit(2) of this session, which is as non-interactive as the job's; the cgroups' pids controller."""
    import resource

    tightest = min(cgroup_pids(), default=(None, None))

    def limit(which: int) -> dict[str, int | None]:
        soft, hard = (None if value == resource.RLIM_INFINITY else value for value in resource.getrlimit(which))
        return {"soft": soft, "hard": hard}

    return {
        "nofile": limit(resource.RLIMIT_NOFILE),
        "nproc": limit(resource.RLIMIT_NPROC),
        "memlock": limit(resource.RLIMIT_MEMLOCK),
        "stack": limit(resource.RLIMIT_STACK),
        "core": limit(resource.RLIMIT_CORE),
        "cgroup_pids": tightest[0],
        "cgroup_pids_used": tightest[1],
    }


def cgroup_pids() -> list[tuple[int, int]]:
    """How many processes and threads each cgroup around this one may have, and has. Source: pids.max, pids.current."""
    limits = cgroup_values("pids", "pids.max", "pids.max")
    used = cgroup_values("pids", "pids.current", "pids.current")
    pairs = [(number(limit), number(count)) for limit, count in zip(limits, used)]
    return [(limit, count or 0) for limit, count in pairs if limit is not None]


@section
def fact_memory(ask: Ask) -> dict[str, Any]:
    """Source: /proc/meminfo, and the memory limits from this process's cgroup up to the root (versions 1 and 2)."""
    fields: dict[str, int] = {}
    for line in read(at("/proc/meminfo")).splitlines():
        name, _, rest = line.partition(":")
        value = number(rest.split()[0]) if rest.split() else None
        if value is not None:
            fields[name] = value * 1024  # printed in kB
    total = fields["MemTotal"]

    def huge(name: str) -> int:
        return fields.get(name, 0) // 1024 * fields.get("Hugepagesize", 0)  # a count, and the usual size

    limits = [number(text) for text in cgroup_values("memory", "memory.max", "memory.limit_in_bytes")]
    tight = [limit for limit in limits if limit is not None and limit < total]  # "none" is `max`, or a huge number
    return {
        "total_bytes": total,
        "available_bytes": fields.get("MemAvailable", fields.get("MemFree", 0)),
        "swap_total_bytes": fields.get("SwapTotal", 0),
        "cgroup_limit_bytes": min(tight) if tight else None,
        "hugetlb_bytes": fields.get("Hugetlb", huge("HugePages_Total")),  # the former from Linux 4.16 on
        "hugetlb_free_bytes": huge("HugePages_Free"),
    }


def cgroup_values(controller: str, modern: str, classic: str) -> Iterator[str]:
    """The texts of a control file in this process's cgroup and in all above it. Source: cgroups(7)."""
    for line in read_or(at("/proc/self/cgroup")).splitlines():
        hierarchy, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "" and hierarchy == "0":
            roots, name = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified"), modern
        elif controller in controllers.split(","):
            roots, name = ("/sys/fs/cgroup/" + controller, "/sys/fs/cgroup/" + controllers), classic
        else:
            continue
        parts = [part for part in path.split("/") if part not in ("", "..")]
        for root in unique(roots):
            for depth in range(len(parts), -1, -1):
                text = read_or(at("/".join([root] + parts[:depth] + [name])))
                if text:
                    yield text


@section
def fact_cpu(ask: Ask) -> dict[str, Any]:
    """Source: /proc/cpuinfo (its first processor), sched_getaffinity(2), /sys/devices/system/node, the CPU cgroup."""
    fields: dict[str, str] = {}
    for line in read(at("/proc/cpuinfo"), 1 << 15).splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    try:
        cores = len(os.sched_getaffinity(0))
    except (AttributeError, OSError):
        cores = os.cpu_count() or 0
    nodes = [name for name in entries(at("/sys/devices/system/node")) if name[:4] == "node" and name[4:].isdigit()]
    return {
        "model": fields.get("model name") or fields.get("Model") or fields.get("cpu", ""),
        "cores": cores,
        "quota": cpu_quota(),
        "flags": (fields.get("flags") or fields.get("Features") or "").split(),
        "numa_nodes": len(nodes) or None,
    }


def cpu_quota() -> float | None:
    """How many processors' time the cgroups allow, or None for all. Source: cpu.max, cpu.cfs_quota_us."""
    quotas: list[float] = []
    periods = [number(text) for text in cgroup_values("cpu", "", "cpu.cfs_period_us")]
    for index, text in enumerate(cgroup_values("cpu", "cpu.max", "cpu.cfs_quota_us")):
        words = text.split()
        quota = number(words[0])
        period = number(words[1]) if len(words) > 1 else periods[index] if index < len(periods) else None
        if quota and quota > 0 and period:
            quotas.append(quota / float(period))
    return min(quotas) if quotas else None
