"""The paths that the job names."""

from __future__ import annotations

import errno
import os
import stat
import time

from .files import entries
from .hub import hub_copy, hub_roots
from .mounts import mount_of, mounts
from .question import Ask, section
from .threads import start_thread

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

INPUT_SECONDS = 6.0  # for all of them
INPUT_PATIENCE = 2.5  # beyond its share of these, for one that does not answer


@section
def fact_inputs(ask: Ask) -> dict[str, Any]:
    """Source: stat(2), access(2) and readdir(3) of the job's paths, small files, the headers and ends of weights."""
    table = mounts()
    begun = time.monotonic()
    until, latest = begun + min(INPUT_SECONDS, ask.timeout * 0.3), begun + min(9.0, ask.timeout * 0.45)
    hanging: set[str] = set()
    roots = hub_roots(ask.variables)
    rows = []
    for index, order in enumerate(ask.inputs):
        place = os.path.abspath(os.path.expanduser(str(order.get("at") or order.get("path"))))
        row = {"path": str(order.get("path")), "role": str(order.get("role")), "at": place, "kind": "unknown"}
        mount = mount_of(place, table)[0]
        share = max(0.2, (until - time.monotonic()) / (len(ask.inputs) - index))
        found: dict[str, Any] = {}
        if mount in hanging:
            found["error"] = "the mount %s hangs" % mount
        elif until <= time.monotonic():
            found["error"] = "no time was left for it"
        else:
            hub = (row["path"], roots) if row["role"] == "model" else None
            thread = start_thread(look_at, place, row["role"], time.monotonic() + share, found, hub)
            patience = min(share + INPUT_PATIENCE, latest - time.monotonic())
            if thread is not None:
                thread.join(max(0.1, patience))
                if thread.is_alive():
                    hanging.add(mount)
                    found = {"error": "no answer within %.1f seconds: the mount %s hangs" % (patience, mount)}
        rows.append(dict(row, **found))
    return {"paths": rows}


def look_at(
    place: str, role: str, until: float, found: dict[str, Any], hub: tuple[str, list[str]] | None = None
) -> None:
    """Everything about one path; what goes wrong is its error. `hub`: its name on the hub, and the cache's folders."""
    try:
        found.update(input_path(place, role, until))
        if hub is not None and found["kind"] == "missing":
            found.update(hub_copy(hub[0], hub[1], until))
    except (OSError, ValueError) as failure:
        found.update(kind="unknown", error=getattr(failure, "strerror", None) or str(failure))


def input_path(place: str, role: str, until: float) -> dict[str, Any]:
    """One path. Raises OSError for what is neither there nor missing."""
    blocked, nearest = way_to(place)
    row: dict[str, Any] = {"nearest": nearest, "blocked": blocked}
    if blocked is not None:
        return dict(row, kind="unknown", error="the folder %s may not be entered" % blocked)
    try:
        mode = os.stat(place).st_mode
    except OSError as failure:
        if failure.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise
        return dict(row, kind="missing", writable=os.access(nearest, os.W_OK | os.X_OK))
    folder = stat.S_ISDIR(mode)
    row["kind"] = "folder" if folder else "file" if stat.S_ISREG(mode) else "other"
    row["readable"] = os.access(place, os.R_OK | os.X_OK if folder else os.R_OK)
    row["writable"] = os.access(place, os.W_OK | os.X_OK if folder else os.W_OK)
    if not row["readable"] or row["kind"] == "other":
        return row
    if role == "output":
        return dict(row, **leftovers(place) if folder else {})
    if role in ("data", "model", "code"):
        from .walk import Walk

        walk = Walk(place, until)
        row.update(walk.folder() if folder else walk.single())
    if role == "model" and folder:
        from .model_files import model_files

        row["model"] = model_files(place, until)
    return row


def way_to(place: str) -> tuple[str | None, str]:
    """The folder on the way to a path that may not be entered, or None, and the deepest part of it that is there."""
    nearest = "/"
    way = [place]
    while way[-1] != os.path.dirname(way[-1]):
        way.append(os.path.dirname(way[-1]))
    for folder in reversed(way[1:]):
        if not os.path.isdir(folder):
            return None, nearest
        nearest = folder
        if not os.access(folder, os.X_OK):
            return folder, nearest
    return None, place if os.path.lexists(place) else nearest


LEFTOVERS = (
    r"^(checkpoint-\d+|global_step\d+|step_\d+|epoch_\d+|latest|adapter|rep_mats\.pkl|trainer_state\.json|"
    r"adapter_model\.(bin|safetensors)|pytorch_model.*\.bin|model.*\.safetensors|.*\.ckpt)$"
)


def leftovers(folder: str) -> dict[str, Any]:
    """What an earlier run left in an output folder that a later one may go on from, or mix with its own."""
    import re

    from .walk import SHOWN_ENTRIES

    names = entries(folder)
    found = [name for name in names if re.match(LEFTOVERS, name)]
    times = []
    for name in found[:1000]:
        try:
            times.append(os.stat(os.path.join(folder, name)).st_mtime)
        except OSError:
            continue  # gone meanwhile
    return {"files": len(names), "checkpoints": found[:SHOWN_ENTRIES], "newest": max(times) if times else None}
