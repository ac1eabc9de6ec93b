"""The report as Markdown to paste into an issue: what a log says stays in code blocks and can not format or ping."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Sequence

from dsdoctor import __version__
from dsdoctor.escape import escaped
from dsdoctor.report.layout import count, fold
from dsdoctor.report.model import Evidence, Finding, Fix, Report
from dsdoctor.report.summary import cited, diagnosis, headline, merged, place, skipped_by_reason, totals

_SPECIAL = re.compile(r"([\\`*\[\]<>#|~&$]|(?<!\w)_|_(?!\w))")  # inside a word an underscore is itself
_LINE_START = re.compile(r"^(\d*)([-+=.)])")  # a list, a numbered list, the line under a heading
_MENTION = re.compile(r"(?<![\w@])@(?=\w)")  # GitHub tells a user that is named; an empty comment prevents it


def render(report: Report) -> str:
    """The whole report as GitHub-flavoured Markdown."""
    report = escaped(report)
    return "\n".join(_lines(report)) + "\n"


def _lines(report: Report) -> Iterator[str]:
    yield f"### dsdoctor {_plain(report.command)}: {_plain(headline(report))}"
    if report.verdict is None:
        yield from _notes(report.notes)
        for finding in merged(report.findings):
            yield from _finding(finding)
    else:
        yield from _diagnosis(report)
    lost = [host for host in report.hosts if not host.reachable]
    yield from _list("Not examined", [f"`{_code(host.name)}`: {_plain(host.error or '')}" for host in lost])
    yield from _list("Could not judge", _skips(report))
    for crash in report.crashed:
        yield from _folded(f"crashed: {crash.name} {fold(crash.hosts)}", crash.traceback)
    if report.passed:
        yield from ("", f"{count(len(report.passed), 'check')} passed.")
    yield from ("", f"{_plain(totals(report))}; dsdoctor {__version__}")


def _diagnosis(report: Report) -> Iterator[str]:
    parts = diagnosis(report)
    verdict = report.verdict
    if parts.cause is not None:
        yield from _finding(parts.cause)
    elif verdict is not None and verdict.text:
        yield from _evidence([Evidence(verdict.text, verdict.source, verdict.line)])
    yield from _notes(parts.notes)
    for finding in parts.others:
        yield from _finding(finding)
    yield from _list("What followed from it" if parts.cause else "Symptoms", map(_item, parts.symptoms))
    yield from _list("Harmless here", map(_plain, parts.harmless))


def _notes(notes: Sequence[str]) -> Iterator[str]:
    for note in notes:
        yield from ("", _plain(note))


def _finding(finding: Finding) -> Iterator[str]:
    where = place(fold(finding.hosts), finding.ranks)
    aside = " (ignored, as asked)" if finding.ignored else ""
    on = f" on `{_code(where)}`" if where else ""
    yield from ("", f"#### {finding.severity.value}: `{_code(finding.name)}`{on}{aside}", "", _plain(finding.message))
    yield from _evidence(finding.evidence)
    for number, fix in enumerate(finding.fix):
        yield from _fix(fix, "Fix" if number == 0 else "Or")


def _evidence(evidence: Sequence[Evidence]) -> Iterator[str]:
    if not evidence:
        return
    lines = [cited(piece) + piece.text for piece in evidence]
    yield from ("", *_fenced("\n".join(lines), "text"))


def _fix(fix: Fix, word: str) -> Iterator[str]:
    yield from ("", f"**{word}:** {_plain(fix.title)}")
    if fix.commands:
        yield from ("", *_fenced("\n".join(fix.commands), "sh"))
    if fix.env:
        lines = "\n".join(f"{name}={shlex.quote(value)}" for name, value in fix.env.items())
        yield from ("", "In the job's environment:", "", *_fenced(lines, "sh"))


def _skips(report: Report) -> Iterator[str]:
    for reason, hosts, names in skipped_by_reason(report):
        where = f" on `{_code(fold(hosts))}`" if hosts else ""
        yield f"{', '.join(f'`{_code(name)}`' for name in names)}{where}: {_plain(reason)}"


def _item(finding: Finding) -> str:
    where = place(fold(finding.hosts), finding.ranks)
    aside = f" ({_plain(where)})" if where else ""
    return f"`{_code(finding.name)}`{aside}: {_plain(finding.message)}"


def _list(title: str, items: Iterable[str]) -> Iterator[str]:
    lines = [f"- {item}" for item in items]
    if lines:
        yield from ("", f"**{title}**", "", *lines)


def _folded(title: str, text: str) -> Iterator[str]:
    yield from ("", f"<details><summary>{_plain(title)}</summary>", "", *_fenced(text.rstrip(), "text"), "")
    yield "</details>"


def _plain(text: str) -> str:
    """Text in which nothing is Markdown, HTML or a mention; on one line."""
    quoted = _SPECIAL.sub(r"\\\1", " ".join(text.split()))
    return _MENTION.sub("@<!-- -->", _LINE_START.sub(r"\1\\\2", quoted))


def _code(text: str) -> str:
    """Text between single backquotes: it cannot hold one."""
    return " ".join(text.split()).replace("`", "'")


def _fenced(text: str, language: str) -> list[str]:
    """A code block whose fence is longer than any run of backquotes in it."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return [f"{fence}{language}", *text.split("\n"), fence]
