"""The report as SARIF 2.1.0, by the parts of the standard that it uses."""

import json
from typing import Any

import pytest
from hypothesis import given, settings

from dsdoctor.report.model import Report
from dsdoctor.report.sarif import render
from tests.report.reports import ALL, DIAGNOSED, ILL
from tests.report.test_text import REPORT

# sarif-v2.1.0-os: property names of the objects that are written, and those that must be there.
ALLOWED = {
    "log": ({"$schema", "version", "runs"}, {"version", "runs"}),
    "run": ({"tool", "invocations", "results", "columnKind"}, {"tool"}),
    "driver": ({"name", "version", "informationUri", "rules"}, {"name"}),
    "result": ({"ruleId", "ruleIndex", "level", "message", "locations", "suppressions"}, {"message"}),
}


def checked(report: Report) -> dict[str, Any]:
    log = json.loads(render(report))
    run = log["runs"][0]
    for kind, values in {
        "log": [log],
        "run": [run],
        "driver": [run["tool"]["driver"]],
        "result": run["results"],
    }.items():
        allowed, wanted = ALLOWED[kind]
        for value in values:
            assert wanted <= set(value) <= allowed
    rules = run["tool"]["driver"]["rules"]
    assert len({rule["id"] for rule in rules}) == len(rules)
    for result in run["results"]:
        assert result["level"] in ("error", "warning", "note")
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
        assert isinstance(result["message"]["text"], str)
        for location in result.get("locations", ()):
            region = location.get("physicalLocation", {}).get("region")
            assert region is None or region["startLine"] >= 1
    return log


@pytest.mark.parametrize("name", sorted(ALL))
def test_structure(name: str) -> None:
    assert checked(ALL[name])["version"] == "2.1.0"


@settings(max_examples=100, deadline=None)
@given(REPORT)
def test_structure_of_any_report(report: Report) -> None:
    checked(report)


def test_lines_of_logs_are_places() -> None:
    (first, *_) = checked(DIAGNOSED)["runs"][0]["results"]
    place = first["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == "train.log"
    assert place["region"]["startLine"] == 120
    assert first["locations"][0]["logicalLocations"] == [{"name": "gpu02", "kind": "resource"}]


def test_hosts_are_logical_places_and_ignored_findings_are_suppressed() -> None:
    results = {result["ruleId"]: result for result in checked(ILL)["runs"][0]["results"]}
    names = [place["name"] for place in results["duplicate-nccl"]["locations"][0]["logicalLocations"]]
    assert names == ["gpu01", "gpu02"]
    assert results["unknown-env-var"]["suppressions"] == [{"kind": "external", "justification": "--ignore"}]


def test_what_was_not_examined_is_told() -> None:
    invocation = checked(ILL)["runs"][0]["invocations"][0]
    assert invocation["executionSuccessful"] is False
    text = json.dumps(invocation)
    assert "gpu03 could not be examined" in text
    assert "low-memlock crashed" in text
