"""Some hosts' ranks would go over InfiniBand, and the others' over sockets."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.ib_use import Port, active_ports, disabled, used_ports
from dsdoctor.checks.nccl_use import all_use_nccl
from dsdoctor.checks.rank_settings import setting
from dsdoctor.cluster import Cluster, Member
from dsdoctor.facts import FactUnavailable
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped


@check(severity=Severity.ERROR, since="0.1")
def ib_on_some_hosts(cluster: Cluster, context: JobContext | None) -> Iterator[Finding | Skipped]:
    """NCCL would use InfiniBand or RoCE on some hosts of the job only, or not of one kind, or not as many ports.

    ## Why it matters
    Each rank chooses its network by itself: InfiniBand or RoCE where a port is active, sockets otherwise. Two that
    choose differently cannot connect: `unhandled system error`, or a hang at the first collective between the hosts.
    Many Ethernet adapters are RoCE ports, too, and are taken without being asked for. Unlike numbers of ports can hang
    without a message.

    ## How to fix it
    NCCL_IB_DISABLE=1 for the whole job (`dsdoctor launch` sets it unless every host has an active port), or bring the
    ports of the other hosts up.

    ## Source
    NVIDIA/nccl, src/transport/net_ib/init.cc; nccl#2428 for numbers of adapters that differ.
    """
    if len(cluster) < 2 or not all_use_nccl(cluster):
        return
    used: dict[str, tuple[Port, ...]] = {}
    why: dict[str, str] = {}
    for member in cluster.examined:
        try:
            ports = used_ports(member, context)
            if not ports and _named_none(member, context):
                continue  # for ib-hca-missing
            used[member.name], why[member.name] = ports, _why(member, ports, context)
        except FactUnavailable as missing:
            yield ib_on_some_hosts.skipped([member.name], str(missing))
    have, have_not = [name for name in used if used[name]], [name for name in used if not used[name]]
    if not have or len(used) < 2:
        return
    if have_not:
        message = f"NCCL would use {_kind(used[have[0]])} on {_some(have)} and sockets on {_some(have_not)}"
        yield _finding(f"{message}; all ranks must use one network", why)
        return
    kinds = {name: _kind(ports) for name, ports in used.items()}
    numbers = {name: str(len(ports)) for name, ports in used.items()}
    if len(set(kinds.values())) > 1:
        yield _finding(f"the hosts' adapters are of different kinds ({_told(kinds)}); they cannot connect", why)
    elif len(set(numbers.values())) > 1:
        message = f"NCCL would use different numbers of {kinds[have[0]]} ports ({_told(numbers)})"
        yield _finding(message, why, Severity.WARNING)


def _told(values: dict[str, str]) -> str:
    """`InfiniBand on n1; RoCE on n2`."""
    by_value: dict[str, list[str]] = {}
    for name, value in values.items():
        by_value.setdefault(value, []).append(name)
    return "; ".join(f"{value} on {_some(names)}" for value, names in by_value.items())


def _named_none(member: Member, context: JobContext | None) -> bool:
    """Whether a host has active ports and NCCL_IB_HCA selects none of them."""
    host = member.facts
    if host is None or not active_ports(host.infiniband) or disabled(host, member.entry, context):
        return False
    return setting("NCCL_IB_HCA", host, member.entry, context) is not None


def _why(member: Member, ports: tuple[Port, ...], context: JobContext | None) -> str:
    host = member.facts
    if ports or host is None:
        return ", ".join(f"{port} {port.port.link_layer} {port.port.rate}".strip() for port in ports[:8])
    off = disabled(host, member.entry, context)
    infiniband = host.infiniband
    if off and active_ports(infiniband):
        return off
    if infiniband.libibverbs is False:
        return "libibverbs.so.1 is not there"
    if infiniband.verbs == ():
        return "/dev/infiniband has no uverbs device: none was given to this container, or ib_uverbs is not loaded"
    return "no port is active" if infiniband.devices else "no InfiniBand or RoCE adapter"


def _kind(ports: tuple[Port, ...]) -> str:
    return "RoCE" if all(port.roce for port in ports) else "InfiniBand"


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _finding(message: str, why: dict[str, str], severity: Severity | None = None) -> Finding:
    return ib_on_some_hosts.finding(
        message,
        severity=severity,
        hosts=list(why),
        evidence=[Evidence(text=reason, source=name) for name, reason in why.items()],
        fix=[
            Fix("Have all ranks use sockets, for the whole job", env={"NCCL_IB_DISABLE": "1"}),
            Fix("Give every host the same active ports, and name them in NCCL_IB_HCA"),
        ],
    )
