"""The page: self-contained, well-formed, and nothing of the data becomes markup."""

import re
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings

from dsdoctor.report.html import render
from dsdoctor.report.model import Evidence, Finding, Fix, Report, Severity
from tests.report.reports import ALL, DIAGNOSED, ILL
from tests.report.test_text import REPORT

VOID = {"meta", "br", "img"}


class Page(HTMLParser):
    """Collects tags and text; notes a tag that is closed in the wrong place."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes.update(name for name, _ in attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def read(text: str) -> Page:
    page = Page()
    page.feed(text)
    page.close()
    assert not page.open
    return page


OURS = {
    *("html", "head", "meta", "title", "style", "body", "h1", "h2", "h3", "p", "article", "section", "footer"),
    *("span", "pre", "code", "table", "tr", "th", "td", "ul", "li", "strong", "details", "summary"),
}


@pytest.mark.parametrize("name", sorted(ALL))
def test_every_report_makes_a_page(name: str) -> None:
    page = read(render(ALL[name]))
    assert page.tags <= OURS
    assert not re.search(r"https?:|//|@import|url\(", render(ALL[name]).split("</style>")[0].split("<style>")[1])


def test_everything_is_said() -> None:
    page = read(render(ILL))
    for finding in ILL.findings:
        assert finding.name in page.text
        for fix in finding.fix:
            assert fix.title in page.text
            for command in fix.commands:
                assert command in page.text
    assert "no NVML library on the host" in page.text
    assert "KeyError: 'memlock'" in page.text
    assert "rank 2" in read(render(DIAGNOSED)).text


def test_data_does_not_become_markup() -> None:
    bad = "<script>alert(1)</script>\" onload='x' $body ${title} &lt;"
    fix = Fix(bad, (bad,), {bad: bad})
    finding = Finding(bad, Severity.ERROR, bad, (bad,), evidence=(Evidence(bad, bad),), fix=(fix,))
    page = read(render(Report("check", 0.0, findings=(finding,), notes=(bad,), passed=(bad,))))
    assert "script" not in page.tags
    assert "onload" not in page.attributes
    assert page.text.count(bad) >= 8


@settings(max_examples=100, deadline=None)
@given(REPORT)
def test_no_report_breaks_the_page(report: Report) -> None:
    page = read(render(report))
    assert page.tags <= OURS
    assert page.attributes <= {"lang", "charset", "name", "content", "http-equiv", "class"}


def test_nothing_may_be_fetched() -> None:
    assert "default-src 'none'; style-src 'unsafe-inline'" in render(ILL)
