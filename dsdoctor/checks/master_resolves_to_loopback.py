"""The master's name means "this machine" on a host of the cluster."""

from __future__ import annotations

import re
from collections.abc import Iterator

from dsdoctor.addresses import is_loopback
from dsdoctor.checks.engine import check
from dsdoctor.checks.names import is_address, networks, views
from dsdoctor.checks.remedy import as_root
from dsdoctor.cluster import Cluster, HostEntry
from dsdoctor.facts import HostFacts
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped

_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@check(severity=Severity.ERROR, since="0.1")
def master_resolves_to_loopback(host: HostFacts, entry: HostEntry, cluster: Cluster) -> Iterator[Finding | Skipped]:
    """The name of the first host resolves to a loopback address (127.0.1.1) on a host of the cluster.

    ## Why it matters
    Debian and Ubuntu write `127.0.1.1 name` into /etc/hosts at the installation. A rank that takes the name for the
    master's address then talks to its own machine: it waits for a store that is not there. On the master itself gloo
    hands its loopback address out to the others; that is a warning, since `dsdoctor launch` gives the ranks a real
    address and gloo an interface.

    ## How to fix it
    Give the name its network address in /etc/hosts, on every host.

    ## Source
    Debian Reference, "The hostname resolution"; RFC 1122 3.2.1.3 for 127.0.0.0/8.
    """
    if len(cluster) < 2:
        return
    name = cluster.master_name
    addresses = (name,) if is_address(name) else host.network.resolves.get(name, ())
    loopback = [address for address in addresses if is_loopback(address)]
    if not loopback or len(loopback) < len(addresses):
        return
    itself = entry.name == cluster.master.name
    real = _real_address(cluster)
    wanted = f"{real} is wanted, as the other hosts have it" if real else "its network address is wanted"
    whose = "its own name" if itself else "the name of the first host"
    yield master_resolves_to_loopback.finding(
        f"{name}, {whose}, resolves to {', '.join(loopback)}; {wanted}",
        severity=Severity.WARNING if itself else None,
        evidence=[Evidence(text=f"{name} resolves to {', '.join(addresses)}", source=host.name)],
        fix=[_fix(host, entry, loopback[0], real, name)],
    )


def _fix(host: HostFacts, entry: HostEntry, loopback: str, real: str | None, name: str) -> Fix:
    if real is None or not _PLAIN_NAME.fullmatch(name):
        return Fix(f"In /etc/hosts, give {name} its network address instead of {loopback}")
    old, word = (re.escape(text).replace("\\-", "-").replace("\\.", "[.]") for text in (loopback, name))
    edit = f'sed -i -E "/^{old}\\s(.*\\s)?{word}(\\s|$)/s/^{old}/{real}/" /etc/hosts'
    return Fix("Give the name its network address in /etc/hosts", (as_root(host, entry, edit),))


def _real_address(cluster: Cluster) -> str | None:
    """What another host takes the master's name for."""
    for addresses in views(networks(cluster), cluster.master_name).values():
        for address in addresses:
            if is_address(address) and not is_loopback(address):
                return address
    return None
