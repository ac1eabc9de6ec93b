"""The page of a run: what it shows, and that nothing out of a host's files becomes markup."""

from __future__ import annotations

import base64
import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsdoctor.report.run_page import Results, RunPage, StageRow, render, results_of
from tests.report.test_html import Page

MATRIX = [[98.71], [98.55, 57.76], [97.41, 57.41, 71.91], [97.74, 56.07, 71.04, 88.62]]
RESULTS = Results(
    tasks=("dbpedia", "amazon", "yahoo", "agnews"),
    accuracy=tuple(map(tuple, MATRIX)),
    order="order_1",
    method="olora",
    seed=0,
    stand_ins={"dbpedia": "reuters-r8"},
    average=78.3675,
    backward_transfer=-1.1767,
    forgetting=1.1767,
)
PAGE = RunPage(
    run="order_1-20260101-120000",
    job="order_1",
    status="done",
    stages=tuple(StageRow(name, "done", 12.3, 1) for name in RESULTS.tasks),
    created="2026-01-01T12:00:00+0000",
    hosts=("gpu01", "gpu02"),
    summary="a table\nof figures",
    results=RESULTS,
)


def read(html: str) -> Page:
    page = Page()
    page.feed(html)
    assert not page.open
    return page


def test_what_the_page_of_a_run_shows():
    html = render(PAGE, b"<svg/>")
    text = " ".join(read(html).text.split())
    assert "order_1: done, 4 of 4 stages done" in text
    assert "run order_1-20260101-120000, begun 2026-01-01T12:00:00+0000, on gpu[01-02]" in text
    assert "Accuracy in % order_1, olora, seed 0" in text
    assert 'dbpedia<br><span class="where">reuters-r8</span>' in html
    for words in (
        "98.71",
        "88.62",
        "average78.37 %the tasks learnt",
        "backward transfer-1.18 points",
        "forgetting1.18 points",
        "forward transfernot measured",
    ):
        assert words in text
    assert html.count('<td class="none">') == 6
    assert base64.b64encode(b"<svg/>").decode() in html
    assert "a table\nof figures" in html
    assert html.count('<div class="wide"><') == 3  # what is too wide for a screen scrolls by itself


def test_a_failed_run_says_why_and_a_run_without_figures_has_no_table():
    stages = (StageRow("a", "done", 1.0, 1), StageRow("b", "failed", 2.0, 3, "stage b failed: rank 1 on gpu02"))
    html = render(RunPage("r", "j", "failed", stages, failure="stage b failed"))
    text = read(html).text
    assert "j: failed, 1 of 2 stages done" in text
    assert "rank 1 on gpu02" in text
    assert "attempt 3" in text
    assert "Accuracy" not in text
    assert "<img" not in html


def test_nothing_of_the_data_becomes_markup():
    evil = '"><script>alert(1)</script><img src=x onerror=alert(2)>\x1b[2J\u202e'
    results = Results((evil,), ((50.0,),), evil, evil, 0, {evil: evil})
    page = RunPage(evil, evil, evil, (StageRow(evil, evil, 0, 2, evil),), evil, (evil,), evil, evil, results)
    svg = b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'><script>alert(2)</script></svg>"
    html = render(page, svg)
    seen = read(html)
    assert "script" not in seen.tags
    assert not {name for name in seen.attributes if name.startswith("on")}
    assert "\x1b" not in html and "\u202e" not in html
    assert re.findall(r'src="([^"]{26})', html) == ["data:image/svg+xml;base64,"]
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:" in html  # no script, nothing fetched


@pytest.mark.parametrize(
    "value",
    [
        [],
        {},
        {"tasks": [], "accuracy": []},
        {"tasks": ["a"], "accuracy": [["1"]]},
        {"tasks": ["a"], "accuracy": [[1.0, 2.0]]},
        {"tasks": ["a"], "accuracy": [[1.0], [2.0]]},
        {"tasks": "a", "accuracy": []},
        {"tasks": ["a"] * 101, "accuracy": []},
        {"tasks": ["a"], "accuracy": [[1.0]], "stand_ins": []},
        {"tasks": ["a"], "accuracy": [[1e999]]},
    ],
)
def test_a_file_of_another_form_is_no_result(value: object):
    assert results_of(json.dumps(value).encode()) is None


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b'{"tasks": ["a"], "accuracy": [[NaN]]}', b"[" * 100_000])
def test_bytes_that_are_no_json_are_no_result(content: bytes):
    assert results_of(content) is None


def test_what_is_missing_in_a_run_is_not_measured():
    results = results_of(b'{"tasks": ["a", "b", "c"], "accuracy": [[1], null, [1, null, 3]], "other": 1}')
    assert results is not None
    html = render(RunPage("r", "j", "running", (), results=results))
    assert html.count('<td class="none">') == 2 + 3 + 1
    assert read(html).text.count("not measured") == 4


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=40), st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=3))
def test_any_names_and_numbers_make_a_page(name: str, values: list[float]):
    results = Results((name, "b", "c"), (tuple(values),), name)
    seen = read(render(RunPage(name, name, "done", (StageRow(name, name),), summary=name, results=results)))
    assert "script" not in seen.tags
