"""Compares what `diagnose` answers with what really happened."""

from __future__ import annotations

from functools import cache

from dsdoctor.logs.diagnose import diagnose
from dsdoctor.logs.rules import RuleSet, load_rules
from dsdoctor.report.model import Verdict
from tests.provoked.failure import Failure


@cache
def rules() -> RuleSet:
    """The rules of the package, read once."""
    return load_rules()


def answer(log: bytes) -> Verdict:
    """The verdict on a log."""
    verdict = diagnose([("train.log", [log])], rules()).verdict
    assert verdict is not None
    return verdict


def mistakes(failure: Failure, log: bytes) -> list[str]:
    """What of the verdict on a log is not what it has to be, in words; empty when all of it is right."""
    verdict = answer(log)
    found = []
    if verdict.cause not in (failure.cause, *failure.also):
        found.append(f"cause {verdict.cause}, not {failure.cause}")
    if failure.line not in (verdict.text or ""):
        found.append(f"line {verdict.text!r} has no {failure.line!r}")
    if failure.rank is not None and verdict.rank != failure.rank:
        found.append(f"rank {verdict.rank}, not {failure.rank}")
    if failure.host is not None and verdict.host != failure.host:
        found.append(f"host {verdict.host}, not {failure.host}")
    return found
