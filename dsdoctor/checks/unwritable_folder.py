"""The job may not write where it has to."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from dsdoctor.checks.engine import check
from dsdoctor.checks.remedy import on_host
from dsdoctor.checks.volumes import places
from dsdoctor.cluster import HostEntry
from dsdoctor.facts import DiskPath, HostFacts
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped

# Without these no job gets far; the others are needed by some jobs, or can be pointed elsewhere by a variable.
_NEEDED = frozenset({"temporary files", "output", "work"})


@check(severity=Severity.WARNING, since="0.1")
def unwritable_folder(host: HostFacts, entry: HostEntry) -> Iterator[Finding | Skipped]:
    """The job's user may not write to its output folder, its temporary files, its home or its caches.

    ## Why it matters
    "PermissionError: [Errno 13] Permission denied" or "Read-only file system", at the first file that is written: the
    log of torchrun, a lock in the cache of Hugging Face, an op that is to be built, a checkpoint after an hour.

    ## How to fix it
    Give the folder to the user, or let the job write to another one.

    ## Source
    access(2) by the job's user, of the folder or of the nearest one above it that exists.
    """
    refused = [path for path in host.disk.paths if path.error is None and not path.writable]
    needed = [path for path in refused if _NEEDED.intersection(path.roles) or not path.roles]
    for paths, severity in ((needed, Severity.ERROR), ([path for path in refused if path not in needed], None)):
        if not paths:
            continue
        yield unwritable_folder.finding(
            f"the job's user may not write to {places(paths)}",
            severity=severity,
            evidence=[Evidence(text=_seen(path), source=host.name) for path in paths],
            fix=[
                Fix(
                    "See who may", (on_host(entry, " && ".join(f"namei -l {shlex.quote(p.path)}" for p in paths[:3])),)
                ),
                Fix(f"Point the job elsewhere: {_elsewhere(paths)}"),
            ],
        )


def _seen(path: DiskPath) -> str:
    state = "exists" if path.exists else "does not exist, nor may it be made"
    return f"{path.path} {state}; file system: {path.filesystem or 'unknown'} {path.source}".rstrip()


def _elsewhere(paths: list[DiskPath]) -> str:
    """The settings that name another place."""
    by_role = {
        "temporary files": "TMPDIR",
        "output": "output_dir:",
        "work": "workdir= in the hostfile",
        "hub cache": "HF_HOME",
        "datasets cache": "HF_DATASETS_CACHE",
        "extension cache": "TORCH_EXTENSIONS_DIR",
        "Triton cache": "TRITON_CACHE_DIR",
        "home": "HOME",
    }
    words = [by_role[role] for path in paths for role in path.roles if role in by_role]
    return ", ".join(dict.fromkeys(words)) or "workdir= in the hostfile"
