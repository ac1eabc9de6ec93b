"""What is on this host: at a path, free on a disk, in use by processes and by other runs."""

from __future__ import annotations

import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List

    Order = Dict[str, Any]

FORGOTTEN = 7 * 86400  # seconds after which nobody asks any more which runs had this code


def kind_of(path: str) -> str:
    """What is at a path: `none`, `link`, `folder` or `file`."""
    if os.path.islink(path):
        return "link" if os.path.exists(path) else "none"
    return "folder" if os.path.isdir(path) else "file" if os.path.exists(path) else "none"


def room(path: str) -> Order:
    """Bytes and files that are free to this user where a path is, or will be."""
    while not os.path.exists(path) and os.path.dirname(path) != path:
        path = os.path.dirname(path)
    try:
        disk = os.statvfs(path)
    except OSError:
        return {}
    files = disk.f_favail if disk.f_files else None  # some file systems count none
    return {"free": disk.f_bavail * disk.f_frsize, "files": files, "at": path}


def other_runs(folder: str, own: str) -> List[Order]:
    """The runs but `own` that were given the code of this work folder, each with its `age` in seconds."""
    names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    if not names:
        return []
    import json

    others = []
    for name in names:
        path = os.path.join(folder, name)
        try:
            age = time.time() - os.stat(path).st_mtime
            if age > FORGOTTEN:
                os.unlink(path)
                continue
            with open(path) as file:
                other = json.load(file)
        except (OSError, ValueError):
            continue
        if other.get("run") != own:
            others.append(dict(other, age=age))
    return others


def users(folder: str, own: str) -> List[Order]:
    """The processes that work in a folder and belong to no terminal: ranks, and not somebody's shell or editor.

    Those whose arguments or variables name the folder `own` are this run's and not told.
    """
    real, found = os.path.realpath(folder), []
    for pid in filter(str.isdigit, os.listdir("/proc") if os.path.isdir("/proc") else []):
        try:
            at = os.readlink("/proc/%s/cwd" % pid)
            if at != real and not at.startswith(real + "/"):
                continue
            with open("/proc/%s/stat" % pid) as file:
                terminal = int(file.read().rpartition(")")[2].split()[4])
            with open("/proc/%s/cmdline" % pid, "rb") as raw:
                argv = raw.read()
            with open("/proc/%s/environ" % pid, "rb") as raw:
                words = argv + b"\0" + raw.read()
        except (OSError, ValueError, IndexError):  # gone meanwhile, or another user's
            continue
        if terminal or int(pid) == os.getpid() or (own and os.fsencode(own) in words):
            continue
        import re

        named = re.search(rb"/runs/([A-Za-z0-9._-]+)", words)
        command = " ".join(argv.decode("utf-8", "replace").split("\0")).strip()[:80]
        found.append({"pid": int(pid), "command": command, "run": named.group(1).decode() if named else ""})
    return found
