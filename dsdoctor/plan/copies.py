"""Where a job's files lie on a host: what the whole plan begins with, and all that copying alone needs of one."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dsdoctor.cluster import HostEntry
from dsdoctor.jobs.job import ResolvedJob
from dsdoctor.jobs.paths import work_folder
from dsdoctor.plan.model import HostPlan, LaunchPlan, PlanError, SyncPlan
from dsdoctor.plan.trees import tree_plans, tree_warnings

NEVER_COPIED = (
    "/.dsdoctor-sync",
    "/.dsdoctor-tokens/",
    ".git/",
    "__pycache__/",
    "*.pyc",
    ".venv/",
    ".mypy_cache/",
    ".ruff_cache/",
    ".pytest_cache/",
)


@dataclass(frozen=True)
class Paths:
    """Where things lie on this machine: the run's directory and the job's code."""

    run_dir: str
    code: str
    python: str  # this machine's own interpreter, for local hosts that name none
    exclude: tuple[str, ...] = ()  # what of the code is not copied, beyond what the job says
    deepspeed: str | None = None  # where the job's DeepSpeed config really is, links followed


def folders(job: ResolvedJob, entry: HostEntry, home: str | None, run: str, paths: Paths) -> tuple[str, str]:
    """Where the code lies and where the run writes on a host. This machine runs the code where it is.

    Raises:
        PlanError: the work folder is below a home that is not known, or is not absolute.
    """
    if entry.local:
        return paths.code, paths.run_dir
    work = work_folder(job, entry.workdir)
    if work == "~" or work.startswith("~/"):
        if not home:
            raise PlanError(f"the home folder on {entry.name} is not known. Give workdir=/a/folder in the hostfile.")
        work = home + work[1:]
    if not work.startswith("/"):
        raise PlanError(f"the work folder {work} of {entry.name} must be absolute or begin with ~/")
    return posixpath.join(work, "code"), posixpath.join(work, "runs", run)


def interpreter(job: ResolvedJob, entry: HostEntry, paths: Paths) -> str:
    """The interpreter that is named for a host."""
    return entry.python or job.job.python or (paths.python if entry.local else "python3")


def sync_plan(job: ResolvedJob, hosts: Sequence[HostPlan], paths: Paths) -> SyncPlan:
    """What is copied, and what of it is left out."""
    return SyncPlan(paths.code, (*NEVER_COPIED, *paths.exclude, *job.job.sync.exclude), tree_plans(job, hosts))


def copy_plan(job: ResolvedJob, entries: Sequence[HostEntry], homes: Mapping[str, str], paths: Paths) -> LaunchPlan:
    """A plan that copies and starts nothing; `homes` are the users' home folders on the hosts.

    Raises:
        PlanError: see :func:`folders`.
    """
    hosts = []
    for entry in entries:
        code_dir, run_dir = folders(job, entry, homes.get(entry.name), "sync", paths)
        python = interpreter(job, entry, paths)
        local, user, port = entry.local, entry.user, entry.port
        hosts.append(
            HostPlan(entry.name, entry.processes, 0, 0, python, code_dir, run_dir, local, {}, user=user, port=port)
        )
    return LaunchPlan(
        job=job.name,
        run="sync",
        profile=job.profile,
        master_addr="",
        master_port=0,
        world_size=0,
        hosts=tuple(hosts),
        stages=(),
        sync=sync_plan(job, hosts, paths),
        setup=job.job.setup,
        warnings=tuple(tree_warnings(job, paths.code)),
    )
