"""Where a job's code lies on this machine, and its runs."""

from __future__ import annotations

import sys
from pathlib import Path

from dsdoctor.jobs.job import ResolvedJob
from dsdoctor.plan.copies import Paths


def code_folder(job: ResolvedJob) -> str:
    """The folder that is copied to the hosts (and run in place on this machine)."""
    return str((Path(job.root) / job.job.sync.code).resolve())


def paths_of(job: ResolvedJob, run_dir: Path) -> Paths:
    """What the plan is to know of this machine; the folder of the runs is not copied with the code."""
    run_dir, code = run_dir.absolute(), Path(code_folder(job))
    inside = run_dir.parent.is_relative_to(code) and run_dir.parent != code
    return Paths(
        str(run_dir),
        str(code),
        sys.executable,
        exclude=(f"/{run_dir.parent.relative_to(code)}/",) if inside else (),
        deepspeed=str(Path(job.deepspeed.path).resolve()) if job.deepspeed else None,
    )
