"""The system: kernel, limits, memory, processors, disks, the container around them."""

from __future__ import annotations

import msgspec


class OsFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The operating system, as /etc/os-release and uname have it."""

    hostname: str
    kernel: str  # uname -r
    machine: str  # x86_64, aarch64
    distribution: str = ""  # PRETTY_NAME
    distribution_id: str = ""
    version_id: str = ""
    libc: str = ""  # "glibc 2.36"
    user: str = ""
    uid: int = -1
    uptime_seconds: float | None = None
    time: float | None = None  # the host's clock, seconds since the epoch, when the probe started
    clock_ahead_least: float | None = None  # seconds by which it is ahead of the clock of who asked, at least
    clock_ahead_most: float | None = None  # and at most; what lies between is the time that asking took


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    """A resource limit of a non-interactive session; None is unlimited."""

    soft: int | None
    hard: int | None


class LimitFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What getrlimit says inside the job's kind of session. Bytes for memlock and stack, counts for the others.

    `nproc` counts the processes and threads of the user, `cgroup_pids` those of the tightest cgroup around the session
    (a container's --pids-limit), of which `cgroup_pids_used` are there already.
    """

    nofile: Limit
    nproc: Limit | None = None
    memlock: Limit | None = None
    stack: Limit | None = None
    core: Limit | None = None
    cgroup_pids: int | None = None
    cgroup_pids_used: int | None = None


class ShmFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Shared memory: /dev/shm."""

    total_bytes: int
    free_bytes: int
    writable: bool = True
    filesystem: str = ""


class DiskPath(msgspec.Struct, frozen=True, kw_only=True):
    """The file system behind a path. `exists` false: the figures are those of the nearest parent that exists.

    With an `error` (a mount that hangs, a folder that may not be entered) the figures are 0 and mean nothing.
    """

    path: str
    roles: tuple[str, ...] = ()  # what is written there: home, temporary, hub cache, extension cache, work, output
    exists: bool
    total_bytes: int
    free_bytes: int
    inodes_free: int | None = None
    writable: bool = False
    filesystem: str = ""  # ext4, nfs4, overlay
    source: str = ""  # the device or export
    mount: str = ""  # where it is mounted
    error: str | None = None


class DiskFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Home, the temporary folder and the paths the probe was asked about."""

    paths: tuple[DiskPath, ...] = ()


class MemoryFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Host RAM; `cgroup_limit_bytes` is what a container may really use.

    What is set aside as huge pages is part of the total, and programs that do not ask for them cannot have it.
    """

    total_bytes: int
    available_bytes: int
    swap_total_bytes: int = 0
    cgroup_limit_bytes: int | None = None
    hugetlb_bytes: int = 0  # set aside as huge pages of any size
    hugetlb_free_bytes: int | None = None  # of those of the usual size, what nobody uses; None: not told

    @property
    def ordinary_bytes(self) -> int:
        """The host's memory without what is set aside as huge pages."""
        return max(self.total_bytes - self.hugetlb_bytes, 0)

    @property
    def limit_bytes(self) -> int:
        """The most that the processes of a job can have together: of the host, or of the container."""
        return min(self.ordinary_bytes, self.cgroup_limit_bytes or self.ordinary_bytes)


class CpuFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The processor."""

    model: str = ""
    cores: int = 0  # logical, that this process may use
    quota: float | None = None  # how many cores' time the cgroup allows; None: no limit
    flags: tuple[str, ...] = ()
    numa_nodes: int | None = None


class ContainerFacts(msgspec.Struct, frozen=True, kw_only=True):
    """`kind` is none, docker, podman, kubernetes, lxc, wsl or other; `evidence` says how it was told."""

    kind: str
    evidence: str = ""
    capabilities: int | None = None  # CapEff of /proc/self/status: bit 14 CAP_IPC_LOCK, bit 23 CAP_SYS_NICE
