"""The report as SARIF 2.1.0, which code hosts show beside the files (OASIS standard, sarif-v2.1.0-os).

Findings about lines of files become results with a place in them; findings about hosts become results with the host
as a logical location. What could not be judged is told as notifications of the invocation.
"""

from __future__ import annotations

import json
import re
import shlex
from typing import Any
from urllib.parse import quote

from dsdoctor import __version__
from dsdoctor.escape import escaped
from dsdoctor.report.layout import fold
from dsdoctor.report.model import Evidence, Finding, Report, Severity
from dsdoctor.report.summary import headline, merged

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/os/schemas/sarif-schema-2.1.0.json"
HOME = "https://github.com/dsdoctor/dsdoctor"
_LEVELS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "note"}


def render(report: Report) -> str:
    """The report as a SARIF log with one run."""
    report = escaped(report)
    findings = merged(report.findings)
    names = list(dict.fromkeys([finding.name for finding in findings]))
    run: dict[str, Any] = {
        "tool": {
            "driver": {
                "name": "dsdoctor",
                "version": __version__,
                "informationUri": HOME,
                "rules": [{"id": name, "name": _pascal(name)} for name in names],
            }
        },
        "invocations": [_invocation(report)],
        "results": [_result(finding, names.index(finding.name)) for finding in findings],
        "columnKind": "unicodeCodePoints",
    }
    return json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2) + "\n"


def _result(finding: Finding, index: int) -> dict[str, Any]:
    where = f" ({fold(finding.hosts)})" if finding.hosts else ""
    result: dict[str, Any] = {
        "ruleId": finding.name,
        "ruleIndex": index,
        "level": _LEVELS[finding.severity],
        "message": {"text": "\n".join([finding.message + where, *_ways_out(finding)])},
    }
    locations = _locations(finding)
    if locations:
        result["locations"] = locations
    if finding.ignored:
        result["suppressions"] = [{"kind": "external", "justification": "--ignore"}]
    return result


def _ways_out(finding: Finding) -> list[str]:
    """The fixes as text: SARIF's own `fixes` are edits of files."""
    lines = []
    for fix in finding.fix:
        lines += [f"Fix: {fix.title}", *(f"  {command}" for command in fix.commands)]
        lines += [f"  in the job's environment: {name}={shlex.quote(value)}" for name, value in fix.env.items()]
    return lines


def _locations(finding: Finding) -> list[dict[str, Any]]:
    """One location for each line of a file that is evidence; the hosts as logical locations of the first."""
    hosts = [{"name": host, "kind": "resource"} for host in finding.hosts]
    places: list[dict[str, Any]] = [
        {"physicalLocation": _physical(piece)} for piece in finding.evidence if piece.source and piece.line
    ]
    if not places and hosts:
        return [{"logicalLocations": hosts}]
    if hosts:
        places[0]["logicalLocations"] = hosts
    return places


def _physical(piece: Evidence) -> dict[str, Any]:
    source = piece.source or ""
    uri = ("file://" if source.startswith("/") else "") + quote(source, safe="/")
    region = {"startLine": piece.line, "snippet": {"text": piece.text}}
    return {"artifactLocation": {"uri": uri}, "region": region}


def _invocation(report: Report) -> dict[str, Any]:
    notes = [f"{skip.name} could not judge {fold(skip.hosts)}: {skip.reason}" for skip in report.skipped]
    notes += [f"{host.name} could not be examined: {host.error or ''}" for host in report.hosts if not host.reachable]
    crashes = [f"{crash.name} crashed on {fold(crash.hosts)}: {crash.traceback}" for crash in report.crashed]
    return {
        "executionSuccessful": not crashes and all(host.reachable for host in report.hosts),
        "toolExecutionNotifications": [
            {"level": "note", "message": {"text": headline(report)}},
            *({"level": "warning", "message": {"text": note}} for note in notes),
            *({"level": "error", "message": {"text": crash}} for crash in crashes),
        ],
    }


def _pascal(name: str) -> str:
    return "".join(word[:1].upper() + word[1:] for word in re.split(r"\W+", name) if word) or "Finding"
