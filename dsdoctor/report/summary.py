"""What every rendering of a report says alike: headline, findings that agree made one, skips by reason, totals."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

from dsdoctor.report.layout import count, fold
from dsdoctor.report.model import Evidence, Finding, Fix, Report, Severity

UNREACHABLE = "unreachable-host"
HARMLESS = "Harmless: "  # how a note begins that says what in a log means nothing
_WITHOUT_PAGE = {"unknown", "training-script-exception"}  # answers that no rule stands for


def headline(report: Report) -> str:
    """The verdict in a sentence or two: what a person who reads one line must know."""
    return _diagnosis_headline(report) if report.verdict is not None else _check_headline(report)


def state(report: Report) -> str:
    """`error`, `warning`, `unknown` or `ok`: the colour of the headline."""
    if report.verdict is not None:
        well = "ok" if report.verdict.confidence != "possible" else "unknown"
        return {"none": well, "unknown": "unknown"}.get(report.verdict.cause, "error")
    ill = {finding.severity for finding in alive(report) if finding.name != UNREACHABLE}
    if Severity.ERROR in ill:
        return "error"
    if report.crashed or report.nothing_judged or any(not host.reachable for host in report.hosts):
        return "unknown"  # not examined must not look like ill
    return "warning" if Severity.WARNING in ill else "ok"


def _check_headline(report: Report) -> str:
    lost = [host.name for host in report.hosts if not host.reachable]
    seen = len(report.hosts) - len(lost)
    ill = [finding for finding in alive(report) if finding.name != UNREACHABLE]
    errors = sum(finding.severity is Severity.ERROR for finding in ill)
    warnings = sum(finding.severity is Severity.WARNING for finding in ill)
    parts = []
    if errors or warnings:
        numbers = count(errors, "error") if errors else "No errors"
        numbers += f", {count(warnings, 'warning')}" if warnings else ""
        parts.append(numbers + _where(ill, report))
    elif report.nothing_judged:
        parts.append(
            f"Nothing was judged: {'the check was' if len(report.skipped) == 1 else 'all checks were'} skipped"
        )
    elif seen:
        every = report.hosts[0].name if seen == 1 else count(seen, "host")
        others = "the other host" if seen == 1 else f"the other {seen} hosts"
        parts.append(f"Nothing wrong found on {others if lost else every}")
    elif not lost:
        parts.append("Nothing wrong found")
    if lost:
        parts.append(f"{fold(lost)} could not be examined")
    if report.crashed:
        parts.append(f"{count(len(report.crashed), 'check')} crashed")
    return "; ".join(parts) + "."


def _where(findings: Iterable[Finding], report: Report) -> str:
    """` on 2 of 3 hosts`; nothing when no finding is about a host, or there is only one."""
    known = {host.name for host in report.hosts}
    ill = {host for finding in findings for host in finding.hosts if finding.severity is not Severity.INFO} & known
    if not ill:
        return ""
    if len(known) == 1:
        return f" on {next(iter(known))}"
    return f" on {len(ill)} of {len(known)} hosts"


def _diagnosis_headline(report: Report) -> str:
    verdict = report.verdict
    if verdict is None or verdict.cause == "none":
        part = verdict is not None and verdict.confidence == "possible"
        return "Nothing is wrong in what could be read." if part else "Nothing is wrong here."
    where = place(verdict.host, () if verdict.rank is None else (verdict.rank,))
    if verdict.cause != "unknown":
        return f"{verdict.cause} ({verdict.confidence})" + (f", began on {where}" if where else "")
    known = any(finding.name == "unknown" for finding in report.findings)
    what = "A failure that no rule knows" if known else "The cause is not in this log"
    return f"{what}; the first to fail was {where}." if where else f"{what}."


def place(host: str | None, ranks: Sequence[int]) -> str:
    """`gpu01, rank 2`, or whichever of the two is known."""
    from dsdoctor.report.layout import ranges

    words = [host] if host else []
    if ranks:
        words.append(f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {ranges(ranks)}")
    return ", ".join(words)


def cited(evidence: Evidence) -> str:
    """Where a piece of evidence stands, as it is put before its text: `train.log:12: `, or nothing."""
    if evidence.line is None:
        return f"{evidence.source}: " if evidence.source else ""
    return f"{evidence.source}:{evidence.line}: " if evidence.source else f"line {evidence.line}: "


def alive(report: Report) -> list[Finding]:
    """The findings that were not ignored."""
    return [finding for finding in report.findings if not finding.ignored]


def merged(findings: Iterable[Finding]) -> list[Finding]:
    """The findings by severity, those that say the same of different hosts made one. Ignored ones come last."""
    groups: dict[object, list[Finding]] = {}
    for finding in findings:
        groups.setdefault(_sameness(finding), []).append(finding)
    result = [_one(group) for group in groups.values()]
    return sorted(result, key=lambda finding: (finding.ignored, -finding.severity.rank))


def _sameness(finding: Finding) -> object:
    """What is equal for findings that say the same: everything but the host's own name and the evidence."""

    def general(text: str) -> str:
        return _own_name(finding.hosts[0]).sub("\0", text) if len(finding.hosts) == 1 else text

    fixes = tuple(
        (general(fix.title), tuple(general(line) for line in fix.commands), tuple(sorted(fix.env.items())), fix.safe)
        for fix in finding.fix
    )
    hosts = len(finding.hosts) == 1 or finding.hosts
    return (finding.name, finding.severity, finding.ignored, general(finding.message), finding.ranks, fixes, hosts)


def _own_name(host: str) -> re.Pattern[str]:
    """A host's name standing alone, not as a part of another name."""
    return re.compile(rf"(?<![\w.@-]){re.escape(host)}(?![\w-]|\.\w)")


def _one(group: Sequence[Finding]) -> Finding:
    """One finding for several that agree; its commands are those of all hosts, each once."""
    first = group[0]
    if len(group) == 1:
        return first
    hosts = tuple(dict.fromkeys(host for finding in group for host in finding.hosts))
    together = fold(hosts)

    def widen(text: str) -> str:
        return _own_name(first.hosts[0]).sub(lambda _: together, text) if len(first.hosts) == 1 else text

    fixes = tuple(
        Fix(
            title=widen(fix.title),
            commands=tuple(dict.fromkeys(line for finding in group for line in finding.fix[number].commands)),
            env=fix.env,
            safe=fix.safe,
        )
        for number, fix in enumerate(first.fix)
    )
    evidence = tuple(dict.fromkeys(piece for finding in group for piece in finding.evidence))
    return Finding(
        name=first.name,
        severity=first.severity,
        message=widen(first.message),
        hosts=hosts,
        ranks=first.ranks,
        evidence=evidence,
        fix=fixes,
        ignored=first.ignored,
    )


def skipped_by_reason(report: Report) -> list[tuple[str, tuple[str, ...], tuple[str, ...]]]:
    """Reason, hosts, names of the checks that were skipped for it there."""
    names: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for skip in report.skipped:
        names.setdefault((skip.reason, skip.hosts), []).append(skip.name)
    hosts: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for (reason, where), which in names.items():
        hosts.setdefault((reason, tuple(dict.fromkeys(which))), []).extend(where)
    return [(reason, tuple(dict.fromkeys(where)), which) for (reason, which), where in hosts.items()]


@dataclass(frozen=True)
class Diagnosis:
    """The parts of a diagnosis: the finding of the verdict, further causes, what followed, what is said beside."""

    cause: Finding | None
    others: tuple[Finding, ...]
    symptoms: tuple[Finding, ...]
    notes: tuple[str, ...]
    harmless: tuple[str, ...]  # sentences


def diagnosis(report: Report) -> Diagnosis:
    """The findings and notes of a diagnosis by their part in it."""
    verdict = report.verdict
    cause = None
    symptoms, others = [], []
    for finding in merged(report.findings):
        if verdict is not None and finding.name == verdict.cause and cause is None:
            cause = finding
        elif finding.severity is Severity.INFO or (verdict is not None and finding.name in verdict.symptoms):
            symptoms.append(finding)
        else:
            others.append(finding)
    harmless = tuple(note.removeprefix(HARMLESS) for note in report.notes if note.startswith(HARMLESS))
    notes = tuple(note for note in report.notes if not note.startswith(HARMLESS))
    return Diagnosis(cause, tuple(others), tuple(symptoms), notes, harmless)


def explainable(report: Report) -> str | None:
    """What to ask `dsdoctor explain` for: a name where there is one to tell, `NAME` where there are several."""
    names = dict.fromkeys(finding.name for finding in merged(report.findings))
    names = {name: None for name in names if name not in _WITHOUT_PAGE}
    if report.verdict is not None and report.verdict.cause in names:
        return report.verdict.cause
    return next(iter(names)) if len(names) == 1 else "NAME" if names else None


def with_short_sources(report: Report) -> Report:
    """The report with the files of its evidence named by the end of their paths, as far as that tells them apart."""
    paths = {piece.source for finding in report.findings for piece in finding.evidence if piece.source and piece.line}
    ends = {path: path.split("/") for path in paths}
    for length in range(1, max(map(len, ends.values()), default=1) + 1):
        short = {path: "/".join(parts[-length:]) for path, parts in ends.items()}
        if len(set(short.values())) == len(short):
            break

    def renamed(finding: Finding) -> Finding:
        evidence = tuple(
            msgspec.structs.replace(piece, source=short[piece.source])
            if piece.source in short and piece.line
            else piece
            for piece in finding.evidence
        )
        return msgspec.structs.replace(finding, evidence=evidence)

    return msgspec.structs.replace(report, findings=tuple(map(renamed, report.findings)))


def totals(report: Report) -> str:
    """The last line: every count, the hosts and the time. A host out of reach is counted as such, not as an error."""
    counts = report.counts()
    lost = sum(not host.reachable for host in report.hosts)
    told = sum(f.name == UNREACHABLE and f.severity is Severity.ERROR for f in alive(report))
    words = [
        count(counts["error"] - told, "error"),
        count(counts["warning"], "warning"),
        f"{counts['info']} info",
        *(f"{counts[name]} {name}" for name in ("passed", "skipped", "crashed", "ignored")),
    ]
    words += [f"{lost} not examined"] if lost else []
    hosts = f"{count(len(report.hosts), 'host')}, " if report.hosts else ""
    return f"{', '.join(words)} ({hosts}{report.seconds:.1f} s)"
