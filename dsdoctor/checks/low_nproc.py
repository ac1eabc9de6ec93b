"""Too few processes and threads may run for the job."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.job_gpus import container
from dsdoctor.checks.outside import start_again
from dsdoctor.checks.remedy import as_root
from dsdoctor.cluster import HostEntry
from dsdoctor.facts import FactUnavailable, HostFacts
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped

# Threads of a rank beside the pools of OpenMP and OpenBLAS: CUDA, NCCL, autograd, pinning, the watchdog. A rule of
# thumb; the pools take a thread a core between all ranks where the launcher divides the cores (torchrun does).
_PER_RANK = 64
_LEAST = 1024

_POOLS = ("num_proc", "preprocessing_num_workers", "dataset_num_proc")
_LOADERS = ("dataloader_num_workers", "num_workers")


@check(severity=Severity.WARNING, since="0.1")
def low_nproc(host: HostFacts, entry: HostEntry, context: JobContext | None) -> Iterator[Finding | Skipped]:
    """The limit of processes and threads, of the user or of the container, is low for the ranks on the host.

    ## Why it matters
    Threads count too. "OpenBLAS blas_thread_init: pthread_create failed", "libgomp: Thread creation failed: Resource
    temporarily unavailable", "can't start new thread", or a fork that fails in the middle of the preprocessing.

    ## How to fix it
    Raise the user's limit, or start the container with a larger one. Fewer workers and OMP_NUM_THREADS=1 help too.

    ## Source
    RLIMIT_NPROC in getrlimit(2), which root is exempt from; pids.max in the kernel's cgroup-v2 guide; nnUNet#1343 (a
    limit of 4096 and OpenBLAS pools of 64 threads).
    """
    workers, named = _workers(context, entry.processes)
    needed = max(_LEAST, host.cpu.cores + _PER_RANK * entry.processes + workers)
    why = f"for {named}" if workers and needed > _LEAST else f"for {entry.processes} ranks"
    for limit, what, source in _limits(host):
        if limit >= needed:
            continue
        yield low_nproc.finding(
            f"{what} {limit} processes and threads; about {needed} are wanted {why}",
            severity=Severity.ERROR if workers >= limit else None,
            evidence=[
                Evidence(text=f"{source}; cores: {host.cpu.cores}, ranks: {entry.processes}", source=host.name),
                *([context.cite(named)] if context and workers else []),
            ],
            fix=_fixes(host, entry, needed, of_user=source.startswith("RLIMIT")),
        )


def _limits(host: HostFacts) -> Iterator[tuple[int, str, str]]:
    """What is left of each limit, in words, and where it was read."""
    limits = host.limits
    if limits.nproc is not None and limits.nproc.soft is not None and host.os.uid != 0:
        hard = "unlimited" if limits.nproc.hard is None else limits.nproc.hard
        source = f"RLIMIT_NPROC of a non-interactive session: {limits.nproc.soft} soft, {hard} hard"
        yield limits.nproc.soft, "the user may have", source
    if limits.cgroup_pids is not None:
        used = limits.cgroup_pids_used or 0
        what = "its container may have" if container(host) else "the session's cgroup may have"
        yield max(0, limits.cgroup_pids - used), f"{what} another", f"pids.max {limits.cgroup_pids}, {used} in use"


def _workers(context: JobContext | None, ranks: int) -> tuple[int, str]:
    """The most worker processes that the job's arguments start at once on the host, and the argument."""
    most = (0, "")
    for names, times in ((_POOLS, 1), (_LOADERS, ranks)):
        for _, name, value in context.argument(*names) if context else ():
            if str(value).isdecimal() and len(str(value)) < 10:
                most = max(most, (int(value) * times, f"{name}: {value}"))
    return most


def _fixes(host: HostFacts, entry: HostEntry, needed: int, *, of_user: bool) -> Iterator[Fix]:
    if of_user:
        try:
            limit = host.limits.nproc
        except FactUnavailable:
            limit = None
        if limit is not None and (limit.hard is None or limit.hard >= needed):
            yield Fix(f"Raise the soft limit for the job: add `ulimit -u {needed}` to setup: of the job file")
            return
        feed = f'echo "* - nproc {max(needed, 65536)}"'
        command = as_root(host, entry, "tee /etc/security/limits.d/90-nproc.conf", fed_by=feed)
        yield Fix("Raise the hard limit (new sessions have it), then log in again", (command,))
        return
    kind = container(host)
    if kind is not None:
        yield start_again(kind, "--pids-limit=-1", {"kubernetes": "the kubelet's podPidsLimit"})
        return
    yield Fix("Give the service or batch step more: TasksMax= of its systemd unit, or its scheduler's setting")
