"""Messages between two hosts take longer than in one room."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.engine import check
from dsdoctor.checks.peers import seen_by, trials
from dsdoctor.checks.remedy import on_host
from dsdoctor.cluster import Cluster
from dsdoctor.facts import Peer
from dsdoctor.report.model import Evidence, Finding, Fix, Severity

FAR = 2.0  # ms; two hosts on one switch need 0.05 to 0.2


@check(severity=Severity.WARNING, since="0.1", trial="peers")
def long_round_trip(cluster: Cluster) -> Iterator[Finding]:
    """A small message between two hosts and back takes more than 2 ms; only with `--network`.

    ## Why it matters
    Every collective is a chain of messages: between two hosts on one switch one takes 0.05 to 0.2 ms, over a VPN, a
    wireless or a wide-area network ten to a thousand times as long, and training with it.

    ## How to fix it
    See by which interface and over how many routers the packets go. Give the job the interface of the network that
    the hosts share (NCCL_SOCKET_IFNAME, ifname= in the hostfile), or hosts that share one.

    ## Source
    The median of 32 messages of 64 bytes over one TCP connection with TCP_NODELAY.
    """
    seen = {member.name: trial for member, _, trial in trials(cluster)}
    told: set[frozenset[str]] = set()
    for member, _, trial in trials(cluster):
        for peer in trial.peers:
            pair = frozenset((member.name, peer.peer))
            taken = _round_trip(peer)
            if taken is None or taken <= FAR or pair in told:
                continue
            told.add(pair)
            back = _round_trip(seen_by(seen.get(peer.peer), member.name))
            yield long_round_trip.finding(
                f"a message from {member.name} to {peer.peer} and back takes {taken:.1f} ms; on one switch 0.2",
                hosts=[member.name, peer.peer],
                evidence=[
                    Evidence(f"{taken:.2f} ms to {peer.address}, median of 32", member.name),
                    *([Evidence(f"{back:.2f} ms to {trial.address}, median of 32", peer.peer)] if back else []),
                ],
                fix=[
                    Fix(
                        "See by which way the packets go",
                        (on_host(member.entry, f"ip route get {peer.address}; tracepath -n {peer.address}"),),
                    )
                ],
            )


def _round_trip(peer: Peer | None) -> float | None:
    if peer is None:
        return None
    times = [port.round_trip_ms for port in peer.ports if port.round_trip_ms is not None]
    return min(times) if times else None
