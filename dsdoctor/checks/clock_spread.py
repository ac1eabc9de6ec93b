"""The hosts' clocks do not agree."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from dsdoctor.checks.engine import check
from dsdoctor.checks.lacking import lacking
from dsdoctor.checks.remedy import as_root
from dsdoctor.cluster import Cluster, Member
from dsdoctor.facts import FactUnavailable
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped

APART = 5.0  # seconds; a host that keeps its time is right within some milliseconds
PRESUMED_DEAD = 15.0  # torchrun's c10d rendezvous: 3 heartbeats of 5 seconds


@dataclass(frozen=True)
class _Clock:
    """How far a clock is ahead of that of the machine that asked, in seconds: at least and at most."""

    member: Member
    least: float
    most: float


@check(severity=Severity.WARNING, since="0.1")
def clock_spread(cluster: Cluster) -> Iterator[Finding | Skipped]:
    """The clock of a host is more than five seconds ahead of, or behind, the other hosts'.

    ## Why it matters
    torchrun's c10d rendezvous compares the time of each host's last heartbeat with its own clock: a host that is 15
    seconds behind counts as dead, and the hosts never come together. Tokens and certificates are not valid yet, builds
    on a shared home are always out of date, and logs of two hosts cannot be laid side by side.

    ## How to fix it
    Let every host keep its time by NTP. In a container the clock is the machine's around it.

    ## Source
    Each host's clock when it was asked and when it had answered, against the clock of the machine that asked; the range
    that this leaves is as wide as asking took, and only what lies outside it is told. torch 2.13,
    distributed/elastic/rendezvous/dynamic_rendezvous.py (keep_alive_interval, keep_alive_max_attempt).
    """
    if len(cluster) < 2:
        return
    yield from lacking(cluster, clock_spread, "os")
    clocks = sorted(_clocks(cluster), key=lambda clock: clock.least + clock.most)
    if len(clocks) < 2:
        return
    nearest = min(clocks, key=lambda clock: abs(clock.least + clock.most))  # to the machine that asked
    usual = clocks[len(clocks) // 2] if len(clocks) > 2 else nearest
    for clock in clocks:
        ahead, behind = clock.least - usual.most, usual.least - clock.most
        if max(ahead, behind) >= APART:
            yield _finding(clock, usual, max(ahead, behind), "ahead of" if ahead > behind else "behind")


def _clocks(cluster: Cluster) -> Iterator[_Clock]:
    for member in cluster.examined:
        try:
            told = member.facts.os if member.facts is not None else None
        except FactUnavailable:
            continue
        if told is None or told.clock_ahead_least is None or told.clock_ahead_most is None:
            continue
        if told.clock_ahead_least <= told.clock_ahead_most:
            yield _Clock(member, told.clock_ahead_least, told.clock_ahead_most)


def _finding(clock: _Clock, usual: _Clock, apart: float, which: str) -> Finding:
    name, other = clock.member.name, usual.member.name
    much = f"{apart:.0f} s" if apart < 7200 else f"{apart / 3600:.0f} hours"
    dead = "; torchrun's rendezvous takes such a host for dead" if apart >= PRESUMED_DEAD else ""
    facts = clock.member.facts
    command = (as_root(facts, clock.member.entry, "timedatectl set-ntp true"),) if facts is not None else ()
    return clock_spread.finding(
        f"the clock of {name} is at least {much} {which} that of {other}{dead}",
        hosts=[name],
        evidence=[
            Evidence(
                text=f"{one.least:+.1f} to {one.most:+.1f} s against the machine that asked", source=one.member.name
            )
            for one in (clock, usual)
        ],
        fix=[Fix("Have it keep its time by NTP (chrony or systemd-timesyncd)", command)],
    )
