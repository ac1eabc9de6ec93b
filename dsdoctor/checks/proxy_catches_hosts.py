"""A proxy is set that leads nowhere, or that traffic between the hosts would go to."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from urllib.parse import urlsplit

from dsdoctor.addresses import is_loopback
from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.names import is_address
from dsdoctor.checks.rank_settings import Setting, settings
from dsdoctor.checks.remedy import where_set
from dsdoctor.cluster import Cluster, HostEntry
from dsdoctor.facts import HostFacts
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped

_PROXIES = ("http_proxy", "https_proxy", "all_proxy")
_USUAL_PORT = {"http": 80, "https": 443, "socks4": 1080, "socks5": 1080, "socks5h": 1080, "socks": 1080}


@check(severity=Severity.WARNING, since="0.1")
def proxy_catches_hosts(
    host: HostFacts, entry: HostEntry, cluster: Cluster, context: JobContext | None
) -> Iterator[Finding | Skipped]:
    """A proxy variable leads to a port of this host at which nobody listens, or no_proxy leaves the other hosts out.

    ## Why it matters
    http_proxy=http://127.0.0.1:10809 is right on the machine that runs the proxy. Carried to another host it sends
    every download there into nothing: models, data sets and wandb fail with `Connection refused`. And programs that
    talk to other hosts by HTTP or gRPC (Ray, an etcd rendezvous, evaluation servers) ask the proxy for them. NCCL, gloo
    and torch's store use no proxy.

    ## How to fix it
    Unset the proxy where it does not run, or give the address of the machine that runs it. Put the hosts of the job
    into no_proxy (`dsdoctor launch` does).

    ## Source
    The environment of the job, and the ports that are listened on; requests' and gRPC's documentation for who reads
    these variables.
    """
    found = settings(host, entry, context)
    proxies = {name: got for name, got in found.items() if name.lower() in _PROXIES and got.value.strip()}
    dead = {name: got for name, got in proxies.items() if _dead(got.value, host.network.listening)}
    for value in dict.fromkeys(got.value for got in dead.values()):
        yield _dead_proxy(host, entry, [name for name, got in dead.items() if got.value == value], value)
    if len(cluster) < 2 or not proxies or dead.keys() == proxies.keys():
        return
    exempt = ",".join(found[name].value for name in ("no_proxy", "NO_PROXY") if name in found)
    others = [member.name for member in cluster if member.name != entry.name]
    caught = [name for name in others if not _exempt(name, host.network.resolves.get(name, ()), exempt)]
    if caught:
        yield _caught(host, proxies, caught, exempt)


def _dead(value: str, listening: tuple[int, ...]) -> bool:
    """Whether a proxy's address is this host's own, and no one listens at its port."""
    try:
        parts = urlsplit(value if "://" in value else f"http://{value}")
        port = parts.port or _USUAL_PORT.get(parts.scheme, 80)
    except ValueError:
        return False
    name = parts.hostname or ""
    return (name == "localhost" or is_loopback(name)) and port not in listening


def _exempt(name: str, addresses: tuple[str, ...], exempt: str) -> bool:
    """Whether no_proxy names a host: by name, by the end of its name, by address, or by network."""
    for word in filter(None, (part.strip().lower() for part in exempt.split(","))):
        plain = word.removeprefix("*").removeprefix(".")
        if word == "*" or name.lower() == plain or name.lower().endswith(f".{plain}"):
            return True
        if is_address(name) and _in(name, word):
            return True
        if addresses and all(address == word or _in(address, word) for address in addresses):
            return True
    return False


def _in(address: str, network: str) -> bool:
    try:
        return "/" in network and ip_address(address) in ip_network(network, strict=False)
    except ValueError:
        return False


def _dead_proxy(host: HostFacts, entry: HostEntry, names: list[str], value: str) -> Finding:
    return proxy_catches_hosts.finding(
        f"{', '.join(names)}={value} leads to this host itself, and nobody listens at that port: downloads fail",
        evidence=[Evidence(text=f"{name}={value}", source=host.name) for name in names],
        fix=[
            Fix(
                "Unset it, or give the address of the machine that runs the proxy",
                tuple(where_set(entry, name) for name in names),
            )
        ],
    )


def _caught(host: HostFacts, proxies: dict[str, Setting], caught: list[str], exempt: str) -> Finding:
    told = ", ".join(caught[:4]) + (f" and {len(caught) - 4} more" if len(caught) > 4 else "")
    wanted = ",".join(dict.fromkeys([*filter(None, exempt.split(",")), *caught, "localhost", "127.0.0.1"]))
    return proxy_catches_hosts.finding(
        f"{', '.join(proxies)} {'is' if len(proxies) == 1 else 'are'} set, and no_proxy does not name {told}",
        severity=Severity.INFO,
        evidence=[
            *(
                Evidence(text=f"{name}={got.value}, from {got.source}", source=host.name)
                for name, got in proxies.items()
            ),
            Evidence(text=f"no_proxy={exempt}" if exempt else "no_proxy is not set", source=host.name),
        ],
        fix=[Fix("Name the hosts in no_proxy", env={"no_proxy": wanted})],
    )
