"""Compares what our checks say of a pair with what really became of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from dsdoctor import yamlfile
from dsdoctor.report.model import Finding, Severity
from tests.judges.pairs import Pair

Outcome = dict[str, Any]


@dataclass(frozen=True)
class Claim:
    """Something that a finding says will happen without an exception, and whether it did."""

    check: str
    says: str  # a pattern that the message holds
    happened: Callable[[re.Match[str], Outcome], bool]


CLAIMS = (
    Claim(
        "scheduler-overridden",
        "first two optimizer steps have a learning rate of 0",
        lambda _, seen: all(rate == 0 for rate in seen["rates"][:2]),
    ),
    Claim(
        "scheduler-overridden",
        r"is replaced by (\w+) of the DeepSpeed config",
        lambda found, seen: bool(seen["scheduler"] == found[1]),
    ),
    Claim(
        "precision-disagrees",
        "does nothing: .* the job trains in (fp16|bf16|fp32)",
        lambda found, seen: bool(seen["precision"] == found[1]),
    ),
)


@dataclass(frozen=True)
class Known:
    """A kind of disagreement that is let be, and why."""

    kind: str
    why: str


@cache
def known() -> tuple[Known, ...]:
    """The kinds of `known.yaml`."""
    path = Path(__file__).parent / "known.yaml"
    return tuple(Known(**one) for one in yamlfile.parse(path.read_text(encoding="utf-8"), str(path)))


@dataclass(frozen=True)
class Disagreement:
    """One pair on which we and the judge differ: its kind, by which it is looked up among the known ones."""

    kind: str
    detail: str


def compared(findings: Iterable[Finding], seen: Outcome) -> Disagreement | None:
    """What differs; None where we agree.

    Agreed is where it raised and we called an error, or ran and we called none; where we call an error that does not
    raise, what it says must have happened; and so must what warnings say of a run that was not stopped.
    """
    findings = list(findings)
    errors = [finding for finding in findings if finding.severity is Severity.ERROR]
    if seen["raised"] is not None:
        return None if errors else Disagreement(f"missed: {short(seen['raised'])}", seen["raised"][:300])
    for finding in findings:
        kept = [(claim, found) for claim in CLAIMS if (found := _claimed(claim, finding))]
        if not all(claim.happened(found, seen) for claim, found in kept):
            return Disagreement(f"otherwise: {finding.name}", f"{finding.message} | {seen}")
        if finding.severity is Severity.ERROR and not kept:
            return Disagreement(f"accused: {finding.name}", finding.message)
    return None


def _claimed(claim: Claim, finding: Finding) -> re.Match[str] | None:
    return re.search(claim.says, finding.message) if finding.name == claim.check else None


def short(raised: str) -> str:
    """An exception without what is particular to one pair: numbers, quoted names."""
    text = " ".join(raised.split())[:110]
    return re.sub(r"\d+(\.\d+)?(e-?\d+)?", "N", re.sub(r"(['`\"]).*?\1", "_", text))


def untouched(pair: Pair, seen: Outcome) -> str | None:
    """What is wrong with the drawing itself: a pair in which nothing is wrong, and that raises all the same."""
    return seen["raised"] if seen["raised"] and not pair.faults else None
