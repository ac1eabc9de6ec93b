"""What several hosts have in common is said once, with all their names."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from dsdoctor.report.model import Finding, Fix, Severity, Skipped


def fold(findings: Iterable[Finding]) -> list[Finding]:
    """Put findings that say the same of several hosts into one: hosts, evidence and fixes are joined, in order."""
    folded: dict[tuple[str, Severity, str], Finding] = {}
    for finding in findings:
        key = (finding.name, finding.severity, finding.message)
        first = folded.get(key)
        if first is None:
            folded[key] = finding
            continue
        folded[key] = msgspec.structs.replace(
            first,
            hosts=_joined(first.hosts, finding.hosts),
            ranks=_joined(first.ranks, finding.ranks),
            evidence=_joined(first.evidence, finding.evidence),
            fix=_joined_fixes(first.fix, finding.fix),
        )
    return list(folded.values())


def fold_skipped(skipped: Iterable[Skipped]) -> list[Skipped]:
    """One entry for each check and reason, with all its hosts."""
    folded: dict[tuple[str, str], Skipped] = {}
    for entry in skipped:
        first = folded.get((entry.name, entry.reason))
        hosts = _joined(first.hosts, entry.hosts) if first else entry.hosts
        folded[entry.name, entry.reason] = Skipped(name=entry.name, hosts=hosts, reason=entry.reason)
    return list(folded.values())


def _joined(first: tuple[Any, ...], second: tuple[Any, ...]) -> tuple[Any, ...]:
    return first + tuple(item for item in second if item not in first)


def _joined_fixes(first: tuple[Fix, ...], second: tuple[Fix, ...]) -> tuple[Fix, ...]:
    """Ways out by title and variables; the commands of the same way on several hosts stand under each other."""
    joined = {(fix.title, tuple(fix.env.items())): fix for fix in first}
    for fix in second:
        key = (fix.title, tuple(fix.env.items()))
        same = joined.get(key)
        joined[key] = msgspec.structs.replace(same, commands=_joined(same.commands, fix.commands)) if same else fix
    return tuple(joined.values())
