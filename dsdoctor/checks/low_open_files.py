"""A process of the job may open too few files."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.job_gpus import container
from dsdoctor.checks.outside import start_again
from dsdoctor.checks.remedy import as_root
from dsdoctor.cluster import HostEntry
from dsdoctor.facts import HostFacts, Limit
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped

# Linux' default is for select(2), and many a job gets by with it. Sockets of NCCL and gloo, data shards and DataLoader
# pipes can go beyond: 4096 cured the case this check comes from (1,024 preprocessing workers under a limit of 1024).
DEFAULT, ENOUGH = 1024, 4096

# A multiprocessing pool holds a pipe and a sentinel for each worker, and datasets a cache file each; the rest of the
# process has libraries, sockets and logs open.
PER_WORKER, OTHERS = 3, 512

_WORKERS = ("num_proc", "preprocessing_num_workers", "dataloader_num_workers", "num_workers", "dataset_num_proc")


@check(severity=Severity.WARNING, since="0.1")
def low_open_files(host: HostFacts, entry: HostEntry, context: JobContext | None) -> Iterator[Finding | Skipped]:
    """The limit of open files in a non-interactive session is low for training, or for what this job starts.

    ## Why it matters
    `OSError: [Errno 24] Too many open files`, in the middle of the preprocessing or when a DataLoader starts its
    workers. The limit of an ssh session without a terminal is often another than the one that `ulimit -n` shows when
    you log in.

    ## How to fix it
    Raise the soft limit before the job starts, up to the hard limit; the hard limit is raised by root.

    ## Source
    getrlimit(2); NVIDIA's NCCL guide reports more than 32,000 descriptors for a job of 144 ranks.
    """
    limit = host.limits.nofile
    asked = max(_asked(context), default=(0, ""))
    needed = max(ENOUGH, asked[0] * PER_WORKER + OTHERS if asked[0] else 0)
    if limit.soft is None or limit.soft >= needed:
        return
    why = f"for {asked[1]}" if needed > ENOUGH else "for training"
    hard = "unlimited" if limit.hard is None else limit.hard
    yield low_open_files.finding(
        f"a process may open {limit.soft} files (hard limit {hard}); {needed} are wanted {why}",
        severity=_severity(limit, needed, asked[0]),
        evidence=[
            Evidence(
                text=f"RLIMIT_NOFILE of a non-interactive session: {limit.soft} soft, {hard} hard", source=host.name
            ),
            *([context.cite(asked[1])] if context and asked[0] else []),
        ],
        fix=_fixes(host, entry, limit, needed),
    )


def _severity(limit: Limit, needed: int, workers: int) -> Severity:
    """An error where the job's own workers cannot start; a remark for a default that can be raised."""
    soft = limit.soft or 0
    if workers and soft < workers * PER_WORKER:
        return Severity.ERROR
    can_be_raised = limit.hard is None or limit.hard >= needed
    return Severity.INFO if soft >= DEFAULT and needed == ENOUGH and can_be_raised else Severity.WARNING


def _asked(context: JobContext | None) -> Iterator[tuple[int, str]]:
    """The worker processes that the job's arguments ask for, with the argument."""
    for _, name, value in context.argument(*_WORKERS) if context else ():
        if str(value).isdecimal():
            yield int(value), f"{name}: {value}"


def _fixes(host: HostFacts, entry: HostEntry, limit: Limit, needed: int) -> Iterator[Fix]:
    if limit.hard is None or limit.hard >= needed:
        yield Fix(f"Raise the soft limit for the job: add `ulimit -n {needed}` to setup: of the job file")
        return
    kind = container(host)
    if kind in ("docker", "podman", "kubernetes"):
        yield start_again(
            kind, f"--ulimit nofile={max(needed, 65536)}", {"kubernetes": "the container runtime's own limit"}
        )
        return
    feed = f'echo "* - nofile {max(needed, 65536)}"'
    command = as_root(host, entry, "tee /etc/security/limits.d/90-open-files.conf", fed_by=feed)
    yield Fix("Raise the hard limit (new sessions have it), then log in again", (command,))
