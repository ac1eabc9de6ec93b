"""Whether a run is using the code of a host's work folder: a copy must not change it under its feet."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

JUST_NOW = 60.0  # seconds in which a run of another head may not have started its ranks yet


def this_head() -> str:
    """A name for this machine that its next boot keeps."""
    identity = ""
    with contextlib.suppress(OSError):
        identity = Path("/etc/machine-id").read_text(encoding="ascii").strip()[:12]
    return f"{socket.gethostname()} {identity}".strip()


def in_use(opened: Mapping[str, Any], host: str) -> str | None:
    """Who uses the code of a host's work folder, in words, by what the host said of it; None when nobody does."""
    for process in opened["users"]:
        run = f"run {process['run']}" if process["run"] else "another program"
        return f"{run} (process {process['pid']} on {host}: {process['command']})"
    for other in opened["runs"]:
        if is_under_way(other):
            return f"run {other['run']} (from {str(other['head']).split(' ', 1)[0]})"
    return None


def is_under_way(run: Mapping[str, Any]) -> bool:
    """Whether a run that was given the code goes on, though none of its ranks may live at this moment.

    A run of this machine holds the lock of its directory. Of another machine's only what is new counts: its ranks are
    seen on the hosts.
    """
    if run.get("head") != this_head():
        return float(run.get("age", 0.0)) < JUST_NOW
    try:
        with Path(str(run.get("directory")), "lock").open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in (errno.EAGAIN, errno.EACCES)
    return False
