"""A host cannot connect to another one of the job, tried with real sockets."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.engine import check
from dsdoctor.checks.peers import absent, trials
from dsdoctor.checks.remedy import as_root, on_host
from dsdoctor.cluster import Cluster, Member
from dsdoctor.facts import Peer, PeerFacts, PeerPort
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped

_ANOTHER = "answers at this address"


@check(severity=Severity.ERROR, since="0.1", trial="peers")
def peer_unreachable(cluster: Cluster) -> Iterator[Finding | Skipped]:
    """A host of the job cannot connect to another one; tried only with `--network`.

    ## Why it matters
    The ranks meet at one port of the master, and then every host connects to every other one at ports that the kernel
    chooses. A firewall between two of them, or one that opens the master's port alone, ends in `Connection timed out`
    after minutes, or in a hang at the first collective. When two hosts hold the same address, the wrong one answers.

    ## How to fix it
    Let the hosts of the cluster through each other's firewall on all ports of the job's interface, in both directions.

    ## Source
    Tried with sockets of the hosts themselves, as NCCL and gloo open them: at the master's port and at one out of
    ip_local_port_range (NCCL's user guide, "IP Network Interfaces" and "Networking issues").
    """
    yield from absent(cluster, peer_unreachable)
    for member, _, trial in trials(cluster):
        for peer in trial.peers:
            if peer.error or any(port.error for port in peer.ports):
                yield _finding(cluster, member, trial, peer)


def _finding(cluster: Cluster, member: Member, trial: PeerFacts, peer: Peer) -> Finding:
    failed = [port for port in peer.ports if port.error]
    told = peer.error or "; ".join(f"port {port.port} ({_use(port)}): {port.error}" for port in failed)
    seen = [
        Evidence(
            f"{peer.address} port {port.port}: {port.error or 'connected'} after {port.seconds:.1f} s", member.name
        )
        for port in peer.ports
    ]
    return peer_unreachable.finding(
        f"{member.name} cannot connect to {peer.peer} at {peer.address}, {told}{_meaning(peer, failed)}",
        hosts=[member.name, peer.peer],
        evidence=seen or [Evidence(f"{peer.address}: {peer.error}", member.name)],
        fix=_fixes(cluster, member, trial, peer, failed),
    )


def _use(port: PeerPort) -> str:
    return "where the ranks meet" if port.kind == "master" else "chosen by the kernel, as for NCCL"


def _meaning(peer: Peer, failed: list[PeerPort]) -> str:
    """What the errors say together."""
    errors = [port.error or "" for port in failed]
    if any(_ANOTHER in error for error in errors):
        return "; another machine holds this address"
    if failed and len(failed) < len(peer.ports):
        return "; the other port is open, so a firewall lets only some through"
    if errors and all(error == "timed out" for error in errors):
        return "; a firewall that drops packets, or no way between these addresses"
    if errors:
        return "; a firewall that rejects, or no way between these addresses"
    return ""


def _fixes(cluster: Cluster, member: Member, trial: PeerFacts, peer: Peer, failed: list[PeerPort]) -> Iterator[Fix]:
    other = next((each for each in cluster if each.name == peer.peer), None)
    if not failed or other is None or other.facts is None:
        return
    if any(_ANOTHER in (port.error or "") for port in failed):
        look = on_host(member.entry, f"ip neigh show {peer.address}")
        yield Fix(f"See which machine it is, and give {peer.peer} an address of its own", (look,))
        return
    allow = f"firewall-cmd --permanent --zone=trusted --add-source={trial.address}"
    reload = as_root(other.facts, other.entry, "firewall-cmd --reload")
    yield Fix(
        f"Let {member.name} through the firewall of {peer.peer}, where that is firewalld",
        (as_root(other.facts, other.entry, allow), reload),
    )
    ufw = as_root(other.facts, other.entry, f"ufw allow from {trial.address}")
    yield Fix("Where it is ufw (a cloud's security group is opened at the provider)", (ufw,))
