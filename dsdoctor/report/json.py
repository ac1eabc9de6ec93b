"""The report for programs: one JSON object, the contract `dsdoctor.report/1`."""

from __future__ import annotations

import json

from dsdoctor.report.model import Report


def render(report: Report) -> str:
    """The report as JSON in ASCII: data is kept letter for letter, and none of it reaches a terminal as control."""
    return json.dumps(report.to_dict(), indent=2) + "\n"
