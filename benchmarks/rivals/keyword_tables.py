"""Three diagnosers of the kind people write first: a list of keywords; the first, last or highest-ranked one counts."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import yaml

from benchmarks.rivals.answer import Answer
from benchmarks.rivals.case import Case

# Where no keyword is found, a traceback is the script's own, and its last line is pointed at.
TRACEBACK = "traceback (most recent call last)"
RAISED = re.compile(r"\b\w*(?:Error|Exception)\b")

Hit = tuple[int, int]  # place in the log, rank of the keyword
Choose = Callable[[Iterable[Hit]], Hit]


def keyword_tables() -> dict[str, Callable[[Case], Answer]]:
    """The three by their names in the table."""
    table = [
        (keyword.lower(), cause)
        for keyword, cause in yaml.safe_load((Path(__file__).parent / "keywords.yaml").read_text(encoding="utf-8"))
    ]

    def by(choose: Choose, last: bool) -> Callable[[Case], Answer]:
        return lambda case: _answer(case.log, table, choose, last)

    count = len(table)
    return {
        f"{count} keywords, the first in the log": by(min, last=False),
        f"{count} keywords, the last in the log": by(max, last=True),
        f"{count} keywords, the highest-ranked": by(lambda hits: min(hits, key=lambda hit: hit[1]), last=False),
    }


def _answer(log: str, table: list[tuple[str, str]], choose: Choose, last: bool) -> Answer:
    began = time.perf_counter()
    lower = log.lower()
    find = lower.rfind if last else lower.find
    hits = [(place, rank) for rank, (keyword, _) in enumerate(table) if (place := find(keyword)) >= 0]
    if hits:
        place, rank = choose(hits)
        return Answer(frozenset([table[rank][1]]), _line_at(log, place), time.perf_counter() - began)
    if TRACEBACK in lower:
        raised = [line for line in log.splitlines() if RAISED.search(line)]
        line = raised[-1] if raised else ""
        return Answer(frozenset(["training-script-exception"]), line, time.perf_counter() - began)
    return Answer(frozenset(), "", time.perf_counter() - began)


def _line_at(log: str, place: int) -> str:
    start = log.rfind("\n", 0, place) + 1
    end = log.find("\n", place)
    return log[start : end if end >= 0 else len(log)]
