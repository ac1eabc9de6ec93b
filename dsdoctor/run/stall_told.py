"""Whether a run stands still, as far as this machine knows it without asking a host."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from dsdoctor.plan.model import LaunchPlan
from dsdoctor.run.directory import RunDirectory
from dsdoctor.run.guard import guards_of
from dsdoctor.run.guardian.spool import read_json
from dsdoctor.run.kept import load
from dsdoctor.run.progress_file import read_progress
from dsdoctor.yamlfile import FileError

SEEN = "seen.json"  # in the run's directory: what the hosts of a run without a head told last


def is_stalled(run: RunDirectory, *, headless: bool) -> bool:
    """Whether the head says so, or, where there is none, a guardian.

    Guardians of this machine (and of a disk that it shares) are read; of others what `remember` was told last.
    """
    if not headless:
        return bool((read_progress(run.path) or {}).get("stalled"))
    told: Any = None
    with suppress(FileError):
        if _here(load(run).plan):
            return True
        told = run.read_json(SEEN)
    return isinstance(told, dict) and bool(told.get("stalled"))


def _here(plan: LaunchPlan) -> bool:
    spools = (str(path) for host in plan.hosts if host.local for path in Path(guards_of(host)).glob("*/*/"))
    return any(read_json(spool, "stall") and not read_json(spool, "end") for spool in spools)


def remember(run: RunDirectory, *, stalled: bool) -> None:
    """Keep what the hosts of a run without a head were just heard to tell; a disk that takes nothing costs that."""
    with suppress(FileError, OSError):
        run.write_json(SEEN, {"stalled": stalled})
