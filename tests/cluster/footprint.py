"""What a cluster leaves outside its own namespaces while it is up: one folder and one control group, and their end.

Everything else of a cluster (mounts, links, processes) lives in namespaces that end with their processes, and those
end when the tests' process ends, however it ends. A frozen host is the exception: it cannot notice. So the name of the
folder and of the group carries the owner's process id and start time, and the next cluster to start ends what is left
of owners that are gone.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

RUN = Path("/run")
PREFIX = "dsdoctor-cluster-"

_numbers = itertools.count()


class StillRunningError(RuntimeError):
    """Processes of a cluster did not end, or its folder or control group could not be removed."""


@dataclass(frozen=True)
class Footprint:
    """The folder and the control group of one cluster."""

    name: str  # OWNER_PID-OWNER_START_TIME-NUMBER

    @property
    def folder(self) -> Path:
        """The folder on the machine's own disk: mount point of the cluster's disks, boot logs."""
        return RUN / f"{PREFIX}{self.name}"

    @property
    def group(self) -> Path:
        """The control group (version 2) that all processes of the cluster are in; one child group a host."""
        return cgroup2_root() / f"{PREFIX}{self.name}"

    @classmethod
    def make(cls) -> Footprint:
        """Make the folder and the group of a new cluster, owned by this process."""
        footprint = cls(f"{os.getpid()}-{start_time(os.getpid())}-{next(_numbers)}")
        footprint.folder.mkdir()
        try:
            footprint.group.mkdir()
        except OSError:
            footprint.folder.rmdir()
            raise
        return footprint

    def owner_is_alive(self) -> bool:
        """Whether the process that made the cluster still runs (the process id alone could be somebody else's)."""
        pid, started, _ = self.name.split("-")
        return start_time(int(pid)) == int(started)

    def erase(self, timeout: float = 10.0) -> None:
        """End every process of the cluster, frozen ones too, and remove the group and the folder.

        Raises:
            StillRunningError: something was left after `timeout` seconds.
        """
        kill_group(self.group, timeout)
        for group in sorted(self.group.glob("*/"), reverse=True):
            remove_group(group, timeout)
        remove_group(self.group, timeout)
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.folder.exists():
            raise StillRunningError(f"{self.folder} could not be removed")


def erase_leftovers() -> list[str]:
    """Erase what clusters of ended owners left behind; returns the names of those that are gone.

    Others may do the same at the same time. What cannot be erased is no reason not to start a new cluster.
    """
    found = [path for place in (RUN, cgroup2_root()) for path in place.glob(f"{PREFIX}*-*-*")]
    names = {path.name.removeprefix(PREFIX) for path in found}
    dead = [footprint for footprint in map(Footprint, sorted(names)) if not footprint.owner_is_alive()]
    gone = []
    for footprint in dead:
        with contextlib.suppress(StillRunningError):
            footprint.erase()
            gone.append(footprint.name)
    return gone


def start_time(pid: int) -> int | None:
    """When a process started, in clock ticks since the boot (field 22 of /proc/PID/stat); None when it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, *fields = stat.rpartition(")")[2].split()
    return None if state == "Z" else int(fields[18])


def cgroup2_root() -> Path:
    """Where version 2 of the control groups is mounted.

    Raises:
        FileNotFoundError: nowhere.
    """
    for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines():
        _, where, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(where)
    raise FileNotFoundError("no cgroup2 file system is mounted")


def kill_group(group: Path, timeout: float) -> None:
    """Kill every process in a control group and below it, and wait until they are gone.

    Raises:
        StillRunningError: one of them is still there after `timeout` seconds.
    """
    try:
        (group / "cgroup.kill").write_text("1")
    except (FileNotFoundError, OSError):
        if not group.exists():
            return
        raise
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        try:
            if "populated 0" in (group / "cgroup.events").read_text(encoding="utf-8"):
                return
        except (FileNotFoundError, OSError):
            return
        time.sleep(0.005)
    raise StillRunningError(f"{group}: processes did not end within {timeout:g} s of SIGKILL")


def remove_group(group: Path, timeout: float) -> None:
    """Remove an empty control group; the kernel may call it busy for a moment after its last process ended."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            group.rmdir()
            return
        except FileNotFoundError:
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise StillRunningError(f"{group}: {error}") from error
        time.sleep(0.005)
