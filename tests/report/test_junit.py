"""The report as JUnit XML."""

from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsdoctor.report.junit import render
from dsdoctor.report.model import Report, Severity
from tests.report.reports import ALL, ILL, NONE
from tests.report.test_text import REPORT


def suite(report: Report, fail_on: Severity = Severity.ERROR) -> ElementTree.Element:
    return ElementTree.fromstring(render(report, fail_on).encode())


@pytest.mark.parametrize("name", sorted(ALL))
@pytest.mark.parametrize("fail_on", list(Severity))
def test_the_numbers_are_those_of_the_cases(name: str, fail_on: Severity) -> None:
    root = suite(ALL[name], fail_on)
    assert int(root.attrib["tests"]) == len(root.findall("testcase")) > 0
    for attribute, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        assert int(root.attrib[attribute]) == len(root.findall(f"testcase/{tag}"))


def test_failures_follow_fail_on_and_ignored_ones_never_fail() -> None:
    def failing(level: Severity) -> list[str]:
        return [case.attrib["name"] for case in suite(ILL, level).findall("testcase[failure]")]

    errors = ["duplicate-nccl [gpu[01-02]]", "unreachable-host [gpu03]"]
    assert failing(Severity.ERROR) == errors
    assert failing(Severity.WARNING) == [*errors, "low-open-files [gpu04]"]


def test_the_commands_are_in_the_failure() -> None:
    failure = suite(ILL).find("testcase[@name='duplicate-nccl [gpu[01-02]]']/failure")
    assert failure is not None
    assert failure.text is not None
    assert "    python -m pip install --no-deps nvidia-nccl-cu12==2.18.1" in failure.text


def test_a_verdict_without_a_cause_is_said() -> None:
    assert suite(NONE).findtext("testcase[@name='verdict']/system-out") == "Nothing is wrong here."


@settings(max_examples=100, deadline=None)
@given(REPORT, st.sampled_from(Severity))
def test_any_report_is_well_formed(report: Report, fail_on: Severity) -> None:
    suite(report, fail_on)
