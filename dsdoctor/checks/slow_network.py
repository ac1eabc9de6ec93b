"""Data goes slower between two hosts than their interfaces, or the other pairs, promise."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dsdoctor.checks.engine import check
from dsdoctor.checks.interfaces import told_speed
from dsdoctor.checks.peers import interface_of, trials
from dsdoctor.checks.remedy import on_host
from dsdoctor.cluster import Cluster, HostEntry
from dsdoctor.report.model import Evidence, Finding, Fix, Severity

# One TCP connection of Python fills 10 Gbit/s; beyond that it says nothing about the wire.
FILLED = 10_000.0  # Mbit/s
OF_THE_LINK = 0.5  # of what the slower of the two interfaces says
OF_THE_OTHERS = 0.25  # of the median of all pairs
THIN = 1200.0  # Mbit/s: one-gigabit Ethernet


@dataclass(frozen=True)
class Measured:
    """One direction between two hosts; speeds in Mbit/s. `promised` is None when an interface does not tell."""

    source: HostEntry
    target: HostEntry
    target_address: str
    mbit: float
    promised: float | None


@check(severity=Severity.WARNING, since="0.1", trial="peers")
def slow_network(cluster: Cluster) -> Iterator[Finding]:
    """Two hosts exchange data slower than their interfaces promise, or than other pairs do; only with `--network`.

    ## Why it matters
    In data-parallel training every step waits for the slowest pair: a cable that fell back to 100 Mbit/s, a route over
    the management network or a VPN makes the whole job as slow as that. And one-gigabit Ethernet needs more than eight
    seconds for each gigabyte of gradients.

    ## How to fix it
    Look at the interfaces that the job uses on both ends: speed, duplex, errors, and the route between them. On a thin
    network exchange less: LoRA instead of full fine-tuning, ZeRO-2 rather than 3, more gradient accumulation.

    ## Source
    Measured with one TCP connection for 0.2 s each way, while neither host measures with another.
    """
    measured = list(_measured(cluster))
    thin: list[Measured] = []
    for each in measured:
        reason = _reason(each, measured)
        if reason:
            yield _finding(each, reason)
        elif each.mbit < THIN:
            thin.append(each)
    if thin:
        yield _thin(thin)


def _measured(cluster: Cluster) -> Iterator[Measured]:
    entries = {member.name: member.entry for member in cluster}
    seen = {member.name: (facts, trial) for member, facts, trial in trials(cluster)}
    speeds = {}
    for name, (facts, trial) in seen.items():
        interface = interface_of(facts, trial)
        speeds[name] = told_speed(interface) if interface is not None else None
    for name, (_, trial) in seen.items():
        for peer in trial.peers:
            if peer.peer not in entries:
                continue
            ends = (speeds.get(name), speeds.get(peer.peer))
            promised = min(filter(None, ends)) if all(ends) else None
            if peer.send_mbit is not None:
                yield Measured(entries[name], entries[peer.peer], peer.address, peer.send_mbit, promised)
            if peer.receive_mbit is not None:
                yield Measured(entries[peer.peer], entries[name], trial.address, peer.receive_mbit, promised)


def _reason(each: Measured, measured: Sequence[Measured]) -> str | None:
    """Why a direction counts as slow."""
    if each.promised is not None and each.mbit < OF_THE_LINK * min(each.promised, FILLED):
        return f"their interfaces say {_rate(each.promised)}"
    others = [other.mbit for other in measured if other is not each]
    if len(others) >= 5 and each.mbit < OF_THE_OTHERS * min(statistics.median(others), FILLED):
        return f"half of all pairs reach {_rate(statistics.median(others))}"
    return None


def _finding(each: Measured, reason: str) -> Finding:
    look = f"ip -s link; ip route get {each.target_address}"
    return slow_network.finding(
        f"{each.source.name} sends to {each.target.name} with {_rate(each.mbit)}; {reason}",
        hosts=[each.source.name, each.target.name],
        evidence=[Evidence(f"{each.mbit:.0f} Mbit/s to {each.target.name}, over 0.2 s", each.source.name)],
        fix=[Fix("Look at the interfaces of both ends and the route between them", (on_host(each.source, look),))],
    )


def _thin(measured: Sequence[Measured]) -> Finding:
    worst = min(measured, key=lambda each: each.mbit)
    hosts = dict.fromkeys(entry.name for each in measured for entry in (each.source, each.target))
    return slow_network.finding(
        f"hosts of the job exchange {_rate(worst.mbit)}: a gigabyte of gradients takes {8000 / worst.mbit:.0f} s",
        severity=Severity.INFO,
        hosts=list(hosts),
        evidence=[Evidence(f"{each.mbit:.0f} Mbit/s to {each.target.name}", each.source.name) for each in measured[:6]],
        fix=[Fix("Exchange less: LoRA, ZeRO-2 rather than 3, more gradient accumulation; or take a faster network")],
    )


def _rate(mbit: float) -> str:
    return f"{mbit / 1000:.1f} Gbit/s" if mbit >= 1000 else f"{mbit:.0f} Mbit/s"
