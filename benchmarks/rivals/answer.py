"""What a diagnoser says of a log, and how its answers are counted."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.rivals.case import HARMLESS, Case

UNKNOWN = "unknown"  # says that something is wrong, and not what


@dataclass(frozen=True)
class Answer:
    """The root causes an answer stands for (none: it says nothing is wrong, or nothing), the line cited, seconds."""

    causes: frozenset[str]
    line: str
    seconds: float

    def right_for(self, case: Case) -> bool:
        """Whether it names a right cause, or keeps quiet where nothing is wrong."""
        return bool((self.causes or {HARMLESS}) & case.accepted)

    def cites(self, case: Case) -> bool:
        """Whether the cited line is the one that the case names, or a piece of it."""
        cited = self.line.strip()
        return bool(cited and case.line) and (case.line in cited or cited in case.line)


@dataclass(frozen=True)
class Score:
    """The counts of one diagnoser over a set of cases, and the median of its seconds a log."""

    failures: int
    named: int  # failures with the right root cause
    said: int  # failures of which it names a cause or points at a line
    citable: int  # failures of which the line is known
    cited: int
    harmless: int
    quiet: int  # harmless logs without an alarm
    seconds: float


def score(cases: Sequence[Case], answers: Sequence[Answer]) -> Score:
    """Count; both sequences are in the same order, and there is at least one case."""
    pairs = list(zip(cases, answers, strict=True))
    failures = [(case, answer) for case, answer in pairs if not case.harmless]
    citable = [(case, answer) for case, answer in failures if case.line]
    return Score(
        failures=len(failures),
        named=sum(answer.right_for(case) for case, answer in failures),
        said=sum(bool(answer.causes - {UNKNOWN} or answer.line) for _, answer in failures),
        citable=len(citable),
        cited=sum(answer.cites(case) for case, answer in citable),
        harmless=len(pairs) - len(failures),
        quiet=sum(answer.right_for(case) for case, answer in pairs if case.harmless),
        seconds=statistics.median(answer.seconds for answer in answers),
    )
