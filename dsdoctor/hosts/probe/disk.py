"""Disks and shared memory."""

from __future__ import annotations

import os
import time

from .accounts import home_folder
from .extensions import extension_cache
from .files import ProbeError, at, unique
from .mounts import mount_of, mounts
from .question import Ask, section
from .threads import start_thread

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PATH_SECONDS = 2.0  # for one path
MOUNT_SECONDS = 5.0  # for a mount that has not answered by then: an automounter, a server that wakes up


@section
def fact_shm(ask: Ask) -> dict[str, Any]:
    """Source: statvfs(3) of /dev/shm."""
    path = at("/dev/shm")
    if not os.path.isdir(path):
        raise ProbeError("there is no /dev/shm")
    sizes = os.statvfs(path)
    return {
        "total_bytes": sizes.f_blocks * sizes.f_frsize,
        "free_bytes": sizes.f_bavail * sizes.f_frsize,
        "writable": os.access(path, os.W_OK | os.X_OK),
        "filesystem": mount_of(os.path.realpath(path), mounts())[1],
    }


@section
def fact_disk(ask: Ask) -> dict[str, Any]:
    """Source: statvfs(3) and access(2) of home, the temporary folder, the caches and the paths asked about."""
    table = mounts()
    roles: dict[str, list[str]] = {}
    for role, path in writing_places(ask) + [("", path) for path in ask.paths] + ask.places:
        roles.setdefault(path, []).append(role)
    rows: dict[str, dict[str, Any]] = {}
    waited: dict[str, Any] = {}  # by mount, the thread that has no answer yet
    left: list[tuple[str, str]] = []

    def measure(path: str) -> None:
        rows[path] = measured(path, table)

    for path in roles:
        mount = mount_of(os.path.abspath(os.path.expanduser(path)), table)[0]
        if mount not in waited:
            thread = start_thread(measure, path)
            if thread is None:
                continue
            thread.join(max(0.1, min(PATH_SECONDS, ask.left() / 2)))
            if not thread.is_alive():
                continue
            waited[mount] = thread
        left.append((mount, path))
    until = time.monotonic() + min(MOUNT_SECONDS - PATH_SECONDS, ask.left() / 4)
    for mount, path in left:
        waited[mount].join(max(0.0, until - time.monotonic()))
        if waited[mount].is_alive():
            reason = "no answer within %.0f seconds: the mount %s hangs" % (MOUNT_SECONDS, mount)
            rows[path] = dict(unmeasured(path, reason), mount=mount)
        elif path not in rows:
            measure(path)
    found = dict(rows)  # a late answer changes nothing any more
    return {"paths": [dict(found[path], roles=[role for role in unique(held) if role]) for path, held in roles.items()]}


def writing_places(ask: Ask) -> list[tuple[str, str]]:
    """Where every job writes: home, temporary files, the caches of Hugging Face, torch's extensions and Triton."""
    cache = ask.variables.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    places = [
        ("home", home_folder()),
        ("temporary files", ask.variables.get("TMPDIR") or "/tmp"),
        ("hub cache", ask.variables.get("HF_HOME") or os.path.join(cache, "huggingface")),
        ("extension cache", extension_cache(ask)),
    ]
    named = (
        ("hub cache", "HF_HUB_CACHE"),
        ("datasets cache", "HF_DATASETS_CACHE"),
        ("Triton cache", "TRITON_CACHE_DIR"),
    )
    return places + [(role, ask.variables[name]) for role, name in named if ask.variables.get(name)]


def measured(path: str, table: list[tuple[str, str, str]]) -> dict[str, Any]:
    """One path's figures, or why there are none."""
    try:
        return disk_path(path, table)
    except (OSError, ValueError) as failure:
        return unmeasured(path, getattr(failure, "strerror", None) or str(failure))


def unmeasured(path: str, reason: str) -> dict[str, Any]:
    """A path whose file system gave no figures."""
    return {"path": path, "exists": False, "total_bytes": 0, "free_bytes": 0, "error": reason}


def disk_path(path: str, table: list[tuple[str, str, str]]) -> dict[str, Any]:
    """One path's file system: its own, or that of the nearest parent that exists. Raises OSError."""
    absolute = os.path.abspath(os.path.expanduser(path))
    nearest = absolute
    while not os.path.exists(nearest) and nearest != os.path.dirname(nearest):
        nearest = os.path.dirname(nearest)
    sizes = os.statvfs(nearest)
    mount, filesystem, source = mount_of(os.path.realpath(nearest), table)
    return {
        "path": path,
        "mount": mount,
        "exists": nearest == absolute,
        "total_bytes": sizes.f_blocks * sizes.f_frsize,
        "free_bytes": sizes.f_bavail * sizes.f_frsize,
        "inodes_free": sizes.f_favail if sizes.f_files else None,  # btrfs and others do not count them
        "writable": os.access(nearest, os.W_OK | (os.X_OK if os.path.isdir(nearest) else 0)),
        "filesystem": filesystem,
        "source": source,
    }
