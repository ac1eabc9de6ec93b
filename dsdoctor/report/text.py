"""The report as a person reads it: the verdict first, then each finding with its evidence and its fix.

Severity is a word and a sign, never colour alone. Commands are never wrapped, so that they can be pasted.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

from dsdoctor.escape import escape, escaped
from dsdoctor.report.layout import Look, count, fold
from dsdoctor.report.model import Evidence, Finding, Fix, Report, Severity
from dsdoctor.report.summary import (
    cited,
    diagnosis,
    explainable,
    headline,
    merged,
    place,
    skipped_by_reason,
    state,
    totals,
    with_short_sources,
)

_STYLE = {"error": "red", "warning": "yellow", "info": "blue", "ok": "green", "unknown": "yellow"}
_EVIDENCE_SHOWN = 5
_NAMED = 12  # checks skipped for one reason; more are counted
_EVIDENCE_LENGTH = 400  # characters; the whole text is in --format json


def render(report: Report, look: Look, verbose: bool = False) -> str:
    """The whole report as text. `verbose` names passed and skipped checks and shows all evidence and tracebacks."""
    report = escaped(report)
    lines = list(_diagnose(report, look, verbose) if report.verdict is not None else _check(report, look, verbose))
    return "\n".join(lines) + "\n"


def _check(report: Report, look: Look, verbose: bool) -> Iterator[str]:
    yield from _headline(report, look)
    yield from _notes(report.notes, look)
    for finding in merged(report.findings):
        yield ""
        yield from _finding(finding, look, verbose)
    yield from _not_judged(report, look, verbose)
    yield from _passed(report, look, verbose)
    yield ""
    yield from _more(report, look)
    yield from (look.paint(line, "bold") for line in look.paragraph(totals(report)))


def _diagnose(report: Report, look: Look, verbose: bool) -> Iterator[str]:
    """The first three lines hold what is wrong, where it began, and the line that shows it."""
    parts = diagnosis(with_short_sources(report))
    yield from _headline(report, look)
    if parts.cause is not None:
        yield from look.paragraph(parts.cause.message, "  ")
        yield from _evidence(parts.cause.evidence, look, verbose, parts.cause.hosts)
    elif report.verdict is not None and report.verdict.text:
        verdict = report.verdict
        yield from _evidence([Evidence(verdict.text or "", verdict.source, verdict.line)], look, verbose)
    yield from _notes(parts.notes, look)
    if parts.cause is not None:
        yield from _fixes(parts.cause, look)
    for finding in parts.others:
        yield ""
        yield from _finding(finding, look, verbose)
    yield from _listed("What followed from it:" if parts.cause else "Symptoms:", parts.symptoms, look)
    yield from _harmless(parts.harmless, look)
    yield from _not_judged(report, look, verbose)
    yield ""
    yield from _more(report, look)
    yield look.paint(_diagnosis_totals(report), "bold")


def _diagnosis_totals(report: Report) -> str:
    parts = diagnosis(report)
    cause = "no cause found" if report.verdict is None or report.verdict.cause in ("none", "unknown") else "cause found"
    words = [
        *([f"{count(len(parts.others), 'further failure')}"] if parts.others else []),
        count(len(parts.symptoms), "symptom"),
        f"{len(parts.harmless)} harmless",
    ]
    return f"{cause}, {', '.join(words)} ({report.seconds:.1f} s)"


def _more(report: Report, look: Look) -> Iterator[str]:
    name = explainable(report)
    if name:
        about = "any of these" if name == "NAME" else "it"
        yield from look.paragraph(f"More about {about}: dsdoctor explain {name}")


def _headline(report: Report, look: Look) -> Iterator[str]:
    kind = state(report)
    mark = look.mark(kind)
    lines = look.paragraph(headline(report), f"{mark} ", "  ")
    yield from (look.paint(line, "bold", _STYLE[kind]) for line in lines)


def _notes(notes: Sequence[str], look: Look) -> Iterator[str]:
    for note in notes:
        yield from look.paragraph(note, "  ")


def _finding(finding: Finding, look: Look, verbose: bool) -> Iterator[str]:
    """The head line of a finding (sign, severity, name, hosts), and below it the rest."""
    sign = severity_word(finding.severity, look)
    name = look.paint(escape(finding.name), "bold")
    where = place(fold(map(escape, finding.hosts)), finding.ranks)
    aside = " (ignored, as asked)" if finding.ignored else ""
    yield f"{sign} {name}{'  ' if where else ''}{look.paint(where, 'cyan')}{aside}"
    yield from body_of(finding, look, verbose)


def severity_word(severity: Severity, look: Look) -> str:
    """The sign and the word of a severity."""
    word = severity.value
    return look.paint(f"{look.mark(word)} {word}", "bold", _STYLE[word])


def body_of(finding: Finding, look: Look, verbose: bool) -> Iterator[str]:
    """What stands below the head line of a finding: message, evidence, ways out. The finding is escaped already."""
    yield from look.paragraph(finding.message, "  ")
    yield from _evidence(finding.evidence, look, verbose, finding.hosts)
    yield from _fixes(finding, look)


def _fixes(finding: Finding, look: Look) -> Iterator[str]:
    for number, fix in enumerate(finding.fix):
        yield from way_out(fix, look, "Fix" if number == 0 else "Or")


def _evidence(evidence: Sequence[Evidence], look: Look, verbose: bool, hosts: tuple[str, ...] = ()) -> Iterator[str]:
    """What was seen, behind a bar; where it was seen is left out when that is the finding's only host."""
    shown = evidence if verbose else evidence[:_EVIDENCE_SHOWN]
    bar = look.paint(look.mark("bar"), "dim")
    for piece in shown:
        source = "" if (piece.source,) == hosts and piece.line is None else escape(cited(piece))
        for number, line in enumerate(piece.text.split("\n")):
            text = line if verbose or len(line) <= _EVIDENCE_LENGTH else line[:_EVIDENCE_LENGTH] + look.mark("more")
            yield from look.paragraph((source if number == 0 else "") + text, f"  {bar} ", f"  {bar}   ")
    if len(shown) < len(evidence):
        yield f"  {bar} and {len(evidence) - len(shown)} more (-v shows all)"


def way_out(fix: Fix, look: Look, word: str) -> Iterator[str]:
    """A fix under its word (`Fix`, `Or`): the title, the commands to paste, the variables to set."""
    aside = " (--fix can do this)" if fix.safe and fix.commands else ""
    label = look.paint(f"{word}:", "bold", "green")
    first, *rest = look.paragraph(f"{word}: {fix.title}{aside}", "  ", "  " + " " * (len(word) + 2))
    yield first.replace(f"{word}:", label, 1)
    yield from rest
    for command in fix.commands:
        yield from (f"      {line}" for line in command.split("\n"))
    if fix.env:
        yield "      in the job's environment:"
        yield from (f"      {name}={shlex.quote(value)}" for name, value in fix.env.items())


def _listed(title: str, findings: Sequence[Finding], look: Look) -> Iterator[str]:
    """Findings in one line each, with where each was seen first."""
    if not findings:
        return
    yield ""
    yield look.paint(title, "bold")
    for finding in findings:
        where = place(fold(map(escape, finding.hosts)), finding.ranks)
        seen = next((f"line {piece.line}" for piece in finding.evidence if piece.line), "")
        aside = f" ({'; '.join(filter(None, (where, seen)))})" if where or seen else ""
        text = f"{escape(finding.name)}{aside}: {finding.message}"
        yield from look.paragraph(text, f"  {look.mark('dot')} ", "    ")


def _harmless(sentences: Sequence[str], look: Look) -> Iterator[str]:
    if not sentences:
        return
    yield ""
    yield look.paint("Harmless here:", "bold")
    for sentence in sentences:
        yield from look.paragraph(sentence, f"  {look.mark('dot')} ", "    ")


def _not_judged(report: Report, look: Look, verbose: bool) -> Iterator[str]:
    reasons = skipped_by_reason(report)
    if reasons:
        yield ""
        yield look.paint(f"{look.mark('skipped')} {count(len(report.skipped), 'check')} could not judge:", "bold")
    for reason, hosts, names in reasons:
        where = f" ({fold(map(escape, hosts))})" if hosts else ""
        named = ", ".join(map(escape, names))
        if len(names) > _NAMED and not verbose:
            named = f"{len(names)} (-v names them)"
        yield from look.paragraph(f"{named}{where}: {reason}", "  ", "    ")
    for crash in report.crashed:
        where = f" on {fold(map(escape, crash.hosts))}" if crash.hosts else ""
        last = crash.traceback.strip().rsplit("\n", 1)[-1]
        yield ""
        yield look.paint(f"{look.mark('error')} crashed {escape(crash.name)}{where}", "bold", "magenta")
        yield from look.paragraph(f"A bug in this check, the others went on: {last}", "  ")
        if verbose:
            yield from (f"    {line}" for line in crash.traceback.rstrip().split("\n"))


def _passed(report: Report, look: Look, verbose: bool) -> Iterator[str]:
    if not report.passed:
        return
    yield ""
    mark = look.paint(look.mark("ok"), "green")
    if verbose:
        yield f"{mark} {count(len(report.passed), 'check')} passed:"
        yield from look.paragraph(", ".join(map(escape, report.passed)), "  ")
    else:
        yield f"{mark} {count(len(report.passed), 'check')} passed (-v names them)"
