"""The report as one self-contained page: no script, nothing fetched, readable in light and dark and on paper."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Sequence
from html import escape as quote
from string import Template

from dsdoctor import __version__
from dsdoctor.escape import escaped
from dsdoctor.report.layout import count, fold
from dsdoctor.report.model import Evidence, Finding, Fix, Report
from dsdoctor.report.summary import cited, diagnosis, headline, merged, place, skipped_by_reason, state, totals
from dsdoctor.resources import folder


def render(report: Report) -> str:
    """The whole page. Everything out of the report is quoted for HTML, and control characters are written out."""
    report = escaped(report)
    return page(f"dsdoctor {report.command}: {headline(report)}", _body(report))


def page(title: str, body: Iterable[str]) -> str:
    """The page with a title, which is quoted here, and a body that is HTML already."""
    template = Template((folder("templates") / "report.html").read_text(encoding="utf-8"))
    return template.substitute(title=quote(title), generator=f"dsdoctor {__version__}", body="\n".join(body))


def _body(report: Report) -> Iterator[str]:
    yield f'<h1 class="{state(report)}">{quote(headline(report))}</h1>'
    if report.verdict is None:
        yield from _notes(report.notes)
        yield from (_article(finding) for finding in merged(report.findings))
    else:
        yield from _diagnosis(report)
    yield from _hosts(report)
    yield from _skipped(report)
    yield from _crashed(report)
    if report.passed:
        names = ", ".join(quote(name) for name in report.passed)
        yield f"<details><summary>{count(len(report.passed), 'check')} passed</summary><p>{names}</p></details>"
    yield f"<footer>{quote(totals(report))} · dsdoctor {__version__} {quote(report.command)}</footer>"


def _diagnosis(report: Report) -> Iterator[str]:
    parts = diagnosis(report)
    verdict = report.verdict
    if parts.cause is not None:
        yield _article(parts.cause)
    elif verdict is not None and verdict.text:
        yield _evidence([Evidence(verdict.text, verdict.source, verdict.line)])
    yield from _notes(parts.notes)
    yield from (_article(finding) for finding in parts.others)
    yield from _listed("What followed from it" if parts.cause else "Symptoms", map(_item, parts.symptoms))
    yield from _listed("Harmless here", map(quote, parts.harmless))


def _notes(notes: Sequence[str]) -> Iterator[str]:
    yield from (f"<p>{quote(note)}</p>" for note in notes)


def _article(finding: Finding) -> str:
    word = finding.severity.value
    where = place(fold(finding.hosts), finding.ranks)
    aside = " (ignored, as asked)" if finding.ignored else ""
    parts = [
        f'<article><h2><span class="{word}">{word}</span> {quote(finding.name)} '
        f'<span class="where">{quote(where)}{aside}</span></h2>',
        f"<p>{quote(finding.message)}</p>",
        _evidence(finding.evidence),
        *(_fix(fix, "Fix" if number == 0 else "Or") for number, fix in enumerate(finding.fix)),
        "</article>",
    ]
    return "\n".join(part for part in parts if part)


def _evidence(evidence: Sequence[Evidence]) -> str:
    if not evidence:
        return ""
    lines = [cited(piece) + piece.text for piece in evidence]
    return f'<pre class="evidence">{quote(chr(10).join(lines))}</pre>'


def _fix(fix: Fix, word: str) -> str:
    aside = " (<code>--fix</code> can do this)" if fix.safe and fix.commands else ""
    text = f"<h3>{word}: {quote(fix.title)}{aside}</h3>"
    if fix.commands:
        text += f'\n<pre class="commands">{quote(chr(10).join(fix.commands))}</pre>'
    if fix.env:
        lines = "\n".join(f"{name}={shlex.quote(value)}" for name, value in fix.env.items())
        text += f'\n<p>In the job\'s environment:</p>\n<pre class="commands">{quote(lines)}</pre>'
    return text


def _item(finding: Finding) -> str:
    where = place(fold(finding.hosts), finding.ranks)
    aside = f' <span class="where">{quote(where)}</span>' if where else ""
    return f"<strong>{quote(finding.name)}</strong>{aside}: {quote(finding.message)}"


def _listed(title: str, items: Iterable[str]) -> Iterator[str]:
    """A list under a heading; the items are HTML already."""
    lines = [f"<li>{item}</li>" for item in items]
    if lines:
        yield f'<section class="block"><h2>{title}</h2><ul>'
        yield from lines
        yield "</ul></section>"


def _hosts(report: Report) -> Iterator[str]:
    """The hosts that could not be examined; those that could are a number in the last line."""
    lost = [host for host in report.hosts if not host.reachable]
    if not lost:
        return
    yield '<section class="block"><h2>Not examined</h2><table><tr><th>Host</th><th>Why</th></tr>'
    yield from (f"<tr><td>{quote(host.name)}</td><td>{quote(host.error or '')}</td></tr>" for host in lost)
    yield "</table></section>"


def _skipped(report: Report) -> Iterator[str]:
    if not report.skipped:
        return
    yield '<section class="block"><h2>Could not judge</h2><table><tr><th>Check</th><th>Hosts</th><th>Why</th></tr>'
    for reason, hosts, names in skipped_by_reason(report):
        cells = (", ".join(names), fold(hosts), reason)
        yield "<tr>" + "".join(f"<td>{quote(cell)}</td>" for cell in cells) + "</tr>"
    yield "</table></section>"


def _crashed(report: Report) -> Iterator[str]:
    for crash in report.crashed:
        yield f'<details><summary class="error">crashed: {quote(crash.name)} {quote(fold(crash.hosts))}</summary>'
        yield f'<pre class="evidence">{quote(crash.traceback)}</pre></details>'
