"""A baseline: the findings that a project lives with. They are shown and counted apart; only new ones fail.

A finding is known again by its name, its host and its message with the numbers left out, since free gigabytes and the
like differ from day to day.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import msgspec

from dsdoctor.report.layout import fold
from dsdoctor.report.model import Finding, Report

SCHEMA = "dsdoctor.baseline/1"

_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")


class Accepted(msgspec.Struct, frozen=True, forbid_unknown_fields=True, order=True):
    """One finding on one host; `host` is empty for a finding about no host."""

    name: str
    host: str
    message: str


class Baseline(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is accepted; `version` is the dsdoctor that wrote it."""

    schema: str
    findings: tuple[Accepted, ...]
    version: str = ""


def baseline_of(report: Report, version: str) -> Baseline:
    """Everything that a report found, its ignored findings apart."""
    accepted = {each for finding in report.findings if not finding.ignored for each in _keys(finding)}
    return Baseline(SCHEMA, tuple(sorted(accepted)), version)


def accept(report: Report, baseline: Baseline) -> Report:
    """The report with what the baseline knows marked as ignored; a finding on known and new hosts is split."""
    known = set(baseline.findings)
    findings = tuple(part for finding in report.findings for part in _split(finding, known))
    return msgspec.structs.replace(report, findings=findings)


def unseen(report: Report, baseline: Baseline) -> str | None:
    """What of the baseline is not there any more, in words; None where all of it is, or could not be looked for."""
    hosts = {known.host for known in baseline.findings} - {""}
    if hosts and not hosts & {host.name for host in report.hosts}:
        return f"it was written for other hosts ({fold(sorted(hosts))}) and lets nothing pass here"
    seen = {key for finding in report.findings for key in _keys(finding)}
    judged = {*report.passed, *(finding.name for finding in report.findings)}
    there = {"", *(host.name for host in report.hosts if host.reachable)}
    gone = [each for each in baseline.findings if each not in seen and each.name in judged and each.host in there]
    if not gone:
        return None
    names = ", ".join(sorted({known.name for known in gone}))
    return f"{len(gone)} of the {len(baseline.findings)} findings in it are not there any more ({names})"


def _split(finding: Finding, known: set[Accepted]) -> Iterator[Finding]:
    if finding.ignored:
        yield finding
        return
    keys = list(_keys(finding))
    old = [key for key in keys if key in known]
    if not old:
        yield finding
    elif len(old) == len(keys):
        yield msgspec.structs.replace(finding, ignored=True)
    else:
        hosts = {key.host for key in old}
        yield _only(finding, [host for host in finding.hosts if host not in hosts])
        yield msgspec.structs.replace(_only(finding, [host for host in finding.hosts if host in hosts]), ignored=True)


def _only(finding: Finding, hosts: Iterable[str]) -> Finding:
    """The finding for some of its hosts, with the evidence that is theirs or nobody's."""
    kept = tuple(hosts)
    others = set(finding.hosts) - set(kept)
    evidence = tuple(each for each in finding.evidence if each.source not in others)
    return msgspec.structs.replace(finding, hosts=kept, evidence=evidence)


def _keys(finding: Finding) -> Iterator[Accepted]:
    for host in finding.hosts or ("",):
        yield Accepted(finding.name, host, _NUMBER.sub("#", finding.message))
