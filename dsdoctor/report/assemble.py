"""A report out of examined hosts and what the checks said of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dsdoctor.report.model import HostState, Report

if TYPE_CHECKING:
    from dsdoctor.checks.engine import Outcome
    from dsdoctor.cluster import Cluster


def report_of(
    cluster: Cluster, outcome: Outcome, seconds: float, command: str = "check", notes: tuple[str, ...] = ()
) -> Report:
    """The report of a run of checks. `seconds` is what the whole took."""
    return Report(
        command=command,
        seconds=seconds,
        hosts=tuple(host_states(cluster)),
        findings=outcome.findings,
        passed=outcome.passed,
        skipped=outcome.skipped,
        crashed=outcome.crashed,
        notes=notes,
    )


def host_states(cluster: Cluster) -> list[HostState]:
    """Each host, and why it was not examined where it was not."""
    states = []
    for member in cluster:
        said = ": ".join(word for word in (member.reach.problem, member.reach.detail.strip()) if word)
        states.append(HostState(member.name, member.reach.ok, None if member.reach.ok else said))
    return states
