"""The report as JUnit XML, which CI systems show: one test case a check, failures at or above `--fail-on`.

Elements and attributes are those that Jenkins and GitLab read (testsuite, testcase, failure, error, skipped,
system-out): https://github.com/jenkinsci/xunit-plugin, file junit-10.xsd.
"""

from __future__ import annotations

from textwrap import dedent
from xml.sax.saxutils import escape as quote
from xml.sax.saxutils import quoteattr

from dsdoctor.escape import escape, escaped
from dsdoctor.report.layout import Look, fold
from dsdoctor.report.model import Finding, Report, Severity
from dsdoctor.report.summary import UNREACHABLE, diagnosis, headline, merged, skipped_by_reason
from dsdoctor.report.text import body_of


def render(report: Report, fail_on: Severity = Severity.ERROR) -> str:
    """The report as one `<testsuite>`. Control characters, which XML cannot hold, are written out."""
    report = escaped(report)
    cases = [_finding(finding, fail_on) for finding in merged(report.findings)]
    failures = sum("<failure" in case for case in cases)
    errors = [_not_examined(name, error) for name, error in _lost(report)]
    errors += [
        _case(crash.name, fold(crash.hosts), _element("error", "crashed", crash.traceback, "crash"))
        for crash in report.crashed
    ]
    skipped = [
        _case(name, fold(hosts), f"<skipped message={_attribute(reason)}/>")
        for reason, hosts, names in skipped_by_reason(report)
        for name in names
    ]
    passed = [_case(name, "", "") for name in report.passed]
    everything = [*cases, *errors, *skipped, *passed, *_verdict(report)]
    head = (
        f'<testsuite name={_attribute("dsdoctor " + report.command)} tests="{len(everything)}" failures="{failures}" '
        f'errors="{len(errors)}" skipped="{len(skipped)}" time="{report.seconds:.3f}">'
    )
    return "\n".join(['<?xml version="1.0" encoding="UTF-8"?>', head, *everything, "</testsuite>"]) + "\n"


def _finding(finding: Finding, fail_on: Severity) -> str:
    """A failure, or a passed case that says what was found when it is too mild or ignored."""
    body = dedent("\n".join(body_of(finding, Look(), verbose=True)))
    if finding.ignored or finding.severity.rank < fail_on.rank:
        aside = "ignored, as asked: " if finding.ignored else f"{finding.severity.value}: "
        inside = f"<system-out>{quote(aside)}{quote(body)}</system-out>"
    else:
        inside = _element("failure", finding.message, body, finding.severity.value)
    return _case(finding.name, fold(finding.hosts), inside)


def _lost(report: Report) -> list[tuple[str, str]]:
    """Hosts that could not be examined and that no finding speaks of."""
    told = {host for finding in report.findings if finding.name == UNREACHABLE for host in finding.hosts}
    return [(host.name, host.error or "") for host in report.hosts if not host.reachable and host.name not in told]


def _not_examined(host: str, error: str) -> str:
    return _case(UNREACHABLE, host, _element("error", f"{host} could not be examined", error, "not examined"))


def _verdict(report: Report) -> list[str]:
    """For a diagnosis without a finding of its own, a case that carries the answer."""
    if report.verdict is None or diagnosis(report).cause is not None:
        return []
    return [_case("verdict", "", f"<system-out>{quote(headline(report))}</system-out>")]


def _case(name: str, where: str, inside: str) -> str:
    title = f"{name} [{where}]" if where else name
    return f'  <testcase classname="dsdoctor" name={_attribute(title)}>{inside}</testcase>'


def _element(tag: str, message: str, text: str, kind: str) -> str:
    return f"<{tag} message={_attribute(message)} type={_attribute(kind)}>{quote(text)}</{tag}>"


def _attribute(text: str) -> str:
    return quoteattr(escape(" ".join(text.split())))
