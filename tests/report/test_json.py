"""The JSON contract: exactly these keys, of these types."""

import json
from typing import Literal

import msgspec
import pytest
from hypothesis import given, settings
from inline_snapshot import snapshot

from dsdoctor.report.json import render
from dsdoctor.report.model import Report
from tests.report.reports import ALL, ILL
from tests.report.test_text import REPORT


class Strict(msgspec.Struct, forbid_unknown_fields=True):
    """A structure of the contract: what is not named here must not be there."""


class Host(Strict):
    name: str
    reachable: bool
    error: str | None


class EvidenceContract(Strict):
    text: str
    source: str | None = None
    line: int | None = None


class FixContract(Strict):
    title: str
    commands: list[str]
    env: dict[str, str]
    safe: bool


class FindingContract(Strict):
    name: str
    severity: Literal["error", "warning", "info"]
    message: str
    hosts: list[str]
    ranks: list[int]
    evidence: list[EvidenceContract]
    fix: list[FixContract]
    ignored: bool


class SkippedContract(Strict):
    name: str
    hosts: list[str]
    reason: str


class CrashedContract(Strict):
    name: str
    hosts: list[str]
    traceback: str


class Counts(Strict):
    error: int
    warning: int
    info: int
    passed: int
    skipped: int
    crashed: int
    ignored: int


class VerdictContract(Strict):
    cause: str
    confidence: Literal["certain", "likely", "possible"]
    host: str | None
    rank: int | None
    line: int | None
    text: str | None
    symptoms: list[str]
    source: str | None


class ReportContract(Strict):
    schema: Literal["dsdoctor.report/1"]
    version: str
    command: Literal["check", "diagnose"]
    seconds: float
    hosts: list[Host]
    findings: list[FindingContract]
    passed: list[str]
    skipped: list[SkippedContract]
    crashed: list[CrashedContract]
    counts: Counts
    verdict: VerdictContract | None
    notes: list[str]


@pytest.mark.parametrize("name", sorted(ALL))
def test_the_contract_holds(name: str) -> None:
    msgspec.json.decode(render(ALL[name]), type=ReportContract)


@settings(max_examples=100, deadline=None)
@given(REPORT)
def test_the_contract_holds_for_any_report(report: Report) -> None:
    text = render(report)
    assert text.isascii()
    assert not [c for c in text if c < " " and c != "\n"]
    msgspec.convert(json.loads(text), ReportContract)


def test_data_is_kept_letter_for_letter() -> None:
    value = json.loads(render(msgspec.structs.replace(ILL, notes=("损失 \x1b[31m \udcff",))))
    assert value["notes"] == ["损失 \x1b[31m \udcff"]


def test_whole_text() -> None:
    value = json.loads(render(ILL))
    assert value["counts"] == snapshot(
        {"error": 3, "warning": 1, "info": 0, "passed": 3, "skipped": 4, "crashed": 1, "ignored": 1}
    )
    assert value["findings"][1] == snapshot(
        {
            "name": "duplicate-nccl",
            "severity": "error",
            "message": "gpu01: 2 owners of libnccl.so.2 (nvidia-nccl-cu11 2.14.3, nvidia-nccl-cu12 2.18.1); one wanted",
            "hosts": ["gpu01"],
            "ranks": [],
            "evidence": [
                {
                    "text": "nvidia-nccl-cu11==2.14.3 in /opt/env/lib/python3.10/site-packages",
                    "source": "gpu01",
                    "line": None,
                }
            ],
            "fix": [
                {
                    "title": "Take out both, then put back the one that torch asks for",
                    "commands": [
                        "python -m pip uninstall -y nvidia-nccl-cu11 nvidia-nccl-cu12",
                        "python -m pip install --no-deps nvidia-nccl-cu12==2.18.1",
                    ],
                    "env": {},
                    "safe": False,
                }
            ],
            "ignored": False,
        }
    )
    assert list(value) == snapshot(
        [
            "schema",
            "version",
            "command",
            "seconds",
            "hosts",
            "findings",
            "passed",
            "skipped",
            "crashed",
            "counts",
            "verdict",
            "notes",
        ]
    )
