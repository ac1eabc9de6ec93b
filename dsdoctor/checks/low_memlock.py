"""Too little memory may be locked for InfiniBand."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.amounts import GIB, amount
from dsdoctor.checks.engine import check
from dsdoctor.checks.job_gpus import container
from dsdoctor.checks.outside import start_again
from dsdoctor.checks.remedy import as_root
from dsdoctor.cluster import Cluster, HostEntry
from dsdoctor.facts import FactUnavailable, HostFacts
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped

# What Linux (64 KiB, 8 MiB since 5.16) and systemd (8 MiB) give is far below the first; AMD's Primus preflight fails
# below the second.
_TOO_LITTLE, _ENOUGH = GIB, 32 * GIB

_CAP_IPC_LOCK = 14


@check(severity=Severity.WARNING, since="0.1")
def low_memlock(host: HostFacts, entry: HostEntry, cluster: Cluster) -> Iterator[Finding | Skipped]:
    """The limit of locked memory is low on a host that has an active InfiniBand or RoCE port.

    ## Why it matters
    The card writes straight into memory, which must not be swapped out meanwhile. Where too little may be locked NCCL
    stops with "Call to ibv_reg_mr failed" or "ibv_create_qp failed: Cannot allocate memory". The limit of the session
    that starts the ranks counts, which is often another than that of your shell.

    ## How to fix it
    Make it unlimited, as every guide for InfiniBand has it.

    ## Source
    NVIDIA's NCCL guide, "Docker" (`--ulimit memlock=-1`); ibv_reg_mr(3); RLIMIT_MEMLOCK in getrlimit(2).
    """
    limit = host.limits.memlock
    if limit is None or limit.soft is None or limit.soft >= _ENOUGH or not _uses_ports(host) or _is_exempt(host):
        return
    hard = "unlimited" if limit.hard is None else amount(limit.hard)
    needed = limit.soft < _TOO_LITTLE and len(cluster) > 1
    yield low_memlock.finding(
        f"{amount(limit.soft)} of memory may be locked (hard limit {hard}); InfiniBand wants it unlimited",
        severity=Severity.ERROR if needed else None,
        evidence=[
            Evidence(text=f"RLIMIT_MEMLOCK of a non-interactive session: {limit.soft} bytes", source=host.name),
            Evidence(text=f"active ports: {', '.join(_ports(host))}", source=host.name),
        ],
        fix=_fixes(host, entry, raisable=limit.hard is None),
    )


def _ports(host: HostFacts) -> list[str]:
    return [
        f"{device.name}:{port.port}"
        for device in host.infiniband.devices
        for port in device.ports
        if port.state == "ACTIVE"
    ]


def _uses_ports(host: HostFacts) -> bool:
    """Whether NCCL would go over InfiniBand here: there is a GPU, an active port, and nobody switched it off."""
    try:
        switched_off = host.environment.variables.get("NCCL_IB_DISABLE", "0") not in ("", "0")
    except FactUnavailable:
        switched_off = False
    return bool(_ports(host)) and bool(host.gpu.gpus) and not switched_off


def _is_exempt(host: HostFacts) -> bool:
    """Whether the kernel does not hold the limit against this user (CAP_IPC_LOCK: root, outside of containers)."""
    capabilities = host.container.capabilities
    if capabilities is not None:
        return bool(capabilities >> _CAP_IPC_LOCK & 1)
    return host.os.uid == 0 and host.container.kind == "none"


def _fixes(host: HostFacts, entry: HostEntry, *, raisable: bool) -> Iterator[Fix]:
    kind = container(host)
    if kind is not None and kind != "wsl":
        yield start_again(kind, "--ulimit memlock=-1", {"kubernetes": "securityContext.capabilities.add: [IPC_LOCK]"})
        return
    if raisable:
        yield Fix("Raise the soft limit for the job: add `ulimit -l unlimited` to setup: of the job file")
    feed = 'echo "* - memlock unlimited"'
    command = as_root(host, entry, "tee /etc/security/limits.d/90-memlock.conf", fed_by=feed)
    yield Fix("Raise it for good (new sessions have it), then log in again", (command,))
