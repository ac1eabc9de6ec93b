"""The interface that a host was told to use is in no network of the other hosts."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.addresses import JobLink, Subnet, job_links, subnets
from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.ifname import select
from dsdoctor.checks.nccl_use import uses_nccl
from dsdoctor.checks.rank_settings import Setting, setting
from dsdoctor.cluster import Cluster, Member
from dsdoctor.facts import FactUnavailable, Interface
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped

_VARIABLES = ("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME")


@check(severity=Severity.WARNING, since="0.1")
def interfaces_apart(cluster: Cluster, context: JobContext | None) -> Iterator[Finding | Skipped]:
    """NCCL_SOCKET_IFNAME or GLOO_SOCKET_IFNAME names an interface in whose network no other host of the job is.

    ## Why it matters
    The interface is there, is up and has an address: nothing complains. But the address that the rank hands out to the
    others is one of another network (a storage net, a management net, a bridge), and they connect to it in vain, until
    a timeout.

    ## How to fix it
    Name the interface by which the hosts reach each other, on every host; it is the one of the route to the master.

    ## Source
    NCCL and gloo hand out the address of the interface named: src/bootstrap.cc, gloo's transport/tcp. Interfaces that
    lead to the master are never in question, whatever network they are in.
    """
    if len(cluster) < 2:
        return
    links = job_links(cluster)
    for variable in _VARIABLES:
        chosen: dict[str, tuple[Interface, Setting]] = {}
        for member in cluster.examined:
            try:
                named = _named(member, variable, context)
            except FactUnavailable as missing:
                if variable == _VARIABLES[0]:
                    yield interfaces_apart.skipped([member.name], str(missing))
                continue
            if named is not None:
                chosen[member.name] = named
        for name, (interface, got) in chosen.items():
            if name in links and _apart(name, interface, chosen, links):
                yield _finding(cluster, name, variable, interface, got, links[name])


def _named(member: Member, variable: str, context: JobContext | None) -> tuple[Interface, Setting] | None:
    """The first interface that a variable selects on a host, None where it selects none or is not set."""
    host = member.facts
    if host is None or (variable.startswith("NCCL") and not uses_nccl(host)):
        return None
    got = setting(variable, host, member.entry, context)
    selected = select(variable, got.value, host.network) if got is not None else None
    if got is None or selected is None or selected.problems or not selected.usable:
        return None  # for socket-ifname-missing
    return selected.usable[0], got


def _apart(
    name: str, interface: Interface, chosen: dict[str, tuple[Interface, Setting]], links: dict[str, JobLink]
) -> bool:
    """Whether an interface is neither the one of the job's routes nor in a network with any other host's."""
    if interface.loopback or interface.name == links[name].interface.name:
        return False
    others: set[Subnet] = set()
    for other, link in links.items():
        if other != name:
            others.update(subnets(chosen[other][0] if other in chosen else link.interface))
    return bool(others) and not others & set(subnets(interface))


def _finding(cluster: Cluster, name: str, variable: str, interface: Interface, got: Setting, link: JobLink) -> Finding:
    right = link.interface.name
    value = f"={right}" if variable.startswith("NCCL") else right
    held = ", ".join(f"{address.address}/{address.prefix}" for address in interface.addresses)
    return interfaces_apart.finding(
        f"{variable}={got.value} selects {interface.name} ({held}), and no other host of the job is in its network; "
        f"they reach this one by {right}",
        hosts=[name],
        evidence=[
            Evidence(text=f"{variable}={got.value}, from {got.source}", source=name),
            Evidence(text=f"the way to {cluster.master_name} goes by {right} ({link.address.address})", source=name),
        ],
        fix=[Fix(f"Set {variable} on {name} to the interface that leads to the other hosts", env={variable: value})],
    )
