"""The ranks of a host share fewer processors than they are."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.engine import check
from dsdoctor.checks.job_gpus import container
from dsdoctor.checks.outside import start_again
from dsdoctor.cluster import HostEntry
from dsdoctor.facts import CpuFacts, HostFacts
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped


@check(severity=Severity.WARNING, since="0.1")
def few_cores(host: HostFacts, entry: HostEntry) -> Iterator[Finding | Skipped]:
    """The session on the host may use fewer processors than the job has ranks there.

    ## Why it matters
    A rank keeps a core busy by itself, starting kernels and running NCCL's proxy threads; its DataLoader workers want
    more. Ranks that share a core wait for each other at every collective, and a container whose quota is used up is
    stopped for the rest of each tenth of a second: GPUs at 20 %, on a machine whose processors look idle.

    ## How to fix it
    Give the container or the job more processors, or the host fewer ranks.

    ## Source
    sched_getaffinity(2), cpu.max and cpu.cfs_quota_us of the cgroups (a container's --cpus, Slurm's --cpus-per-task)
    as the session has them, against the ranks on the host. A CPU without a GPU trains with the cores that it has: only
    hosts with GPUs are judged.
    """
    cpu, ranks = host.cpu, entry.processes
    if not host.gpu.gpus or cpu.cores < 1:
        return
    allowed = float(cpu.cores) if cpu.quota is None else min(cpu.quota, float(cpu.cores))
    if allowed >= ranks:
        return
    limited = cpu.quota is not None and cpu.quota < cpu.cores
    yield few_cores.finding(
        f"{ranks} rank{'' if ranks == 1 else 's'} are to run here, and the session may use {allowed:g} "
        f"processor{'' if allowed == 1 else 's'}{' (the quota of its cgroup)' if limited else ''}; "
        "one for each rank is the least",
        evidence=[Evidence(text=_seen(cpu), source=host.name)],
        fix=_fixes(host, ranks),
    )


def _seen(cpu: CpuFacts) -> str:
    quota = "no quota" if cpu.quota is None else f"a quota of {cpu.quota:g}"
    return f"{cpu.cores} processors in the session's affinity, {quota}"


def _fixes(host: HostFacts, ranks: int) -> Iterator[Fix]:
    if container(host):
        words = {"kubernetes": f"resources.limits.cpu of the pod, {ranks} or more"}
        yield start_again(container(host), f"--cpus={ranks}", words)
    else:
        yield Fix(f"Ask for more: --cpus-per-task={ranks} or more of Slurm, CPUQuota= and AllowedCPUs= of systemd")
    yield Fix("Run fewer ranks on this host: slots= in the hostfile")
