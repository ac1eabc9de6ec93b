"""NCCL_SOCKET_IFNAME or GLOO_SOCKET_IFNAME names no interface that the host can use."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.ifname import leading_to_master, select
from dsdoctor.checks.rank_settings import ENVIRONMENT, of_a_shell, setting
from dsdoctor.cluster import Cluster, HostEntry
from dsdoctor.facts import HostFacts, NetworkFacts
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped

VARIABLES = ("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME")


@check(severity=Severity.ERROR, since="0.1")
def socket_ifname_missing(
    host: HostFacts, entry: HostEntry, cluster: Cluster, context: JobContext | None
) -> Iterator[Finding | Skipped]:
    """A variable names a network interface that is not there, is down or has no address on this host.

    ## Why it matters
    Interfaces have other names on other hosts (bond0 here, eno1 there), and launchers give every host the same value.
    Where it fits nothing NCCL stops with `Bootstrap : no socket interface found` and gloo with `Unable to find
    address for`; ranks on the other hosts then fail with something else, like a connection reset.

    ## How to fix it
    Set the variable on each host to the interface that carries the route to the master, or leave it unset.
    `dsdoctor launch` derives it for each host.

    ## Source
    NCCL's user guide and src/misc/socket.cc for the grammar (prefixes, =, ^, lists); torch 2.13 for gloo, which takes
    plain names only; src/misc/param.cc for the order of environment, ~/.nccl.conf and /etc/nccl.conf.
    """
    for variable in VARIABLES:
        got = setting(variable, host, entry, context)
        by_hand = got is None
        got = got or of_a_shell(variable, host)
        if got is None or not got.value:
            continue
        value, source = got.value, got.source
        network = host.network
        selected = select(variable, value, network)
        if selected is None:
            continue
        problems = selected.problems
        if not problems and len(cluster) > 1 and all(interface.loopback for interface in selected.usable):
            problems = ("it names the loopback interface, by which no other host can be reached",)
        if problems:
            device = leading_to_master(network, cluster.master_name)
            yield socket_ifname_missing.finding(
                f"{variable}={value}: {'; '.join(problems)}{_advice(device, cluster, host)}",
                # A job started over ssh does not read the file; one that is started by hand gets the value.
                severity=Severity.WARNING if by_hand else None,
                evidence=[Evidence(text=f"{variable}={value}, from {source}", source=host.name), _there(host, network)],
                fix=[_fix(variable, device, source, host)],
            )


def _advice(device: str | None, cluster: Cluster, host: HostFacts) -> str:
    if device is None:
        return ""
    if host.name == cluster.master.name:
        return f"; the other hosts reach this one by {device}"
    return f"; the route to {cluster.master_name} leaves by {device}"


def _there(host: HostFacts, network: NetworkFacts) -> Evidence:
    up = [f"{item.name} ({item.addresses[0].address})" for item in network.interfaces if item.up and item.addresses]
    return Evidence(text=f"interfaces that are up and have an address: {', '.join(up) or 'none'}", source=host.name)


def _fix(variable: str, device: str | None, source: str, host: HostFacts) -> Fix:
    where = f"on {host.name}" if source == ENVIRONMENT else f"for {host.name}, in {source}"
    if device is None:
        return Fix(f"Unset {variable} {where}")
    value = f"={device}" if variable == "NCCL_SOCKET_IFNAME" else device
    title = f"Set {variable} {where} to the interface that leads to the other hosts, or unset it"
    return Fix(title, env={variable: value})
