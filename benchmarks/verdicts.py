"""What `diagnose` answers beside keyword tables and other diagnosers, on logs whose root cause is known.

In percent of the logs: of failures, the root cause is right (one of those that the case accepts), the line pointed at
is right, anything is said at all; of harmless logs (healthy jobs with their warnings), no alarm is given. The last
column is the median time for a log in a process that is already running. Another program's answer stands for every root
cause that it can mean. Such programs are taken from checkouts named in the environment: see the README here. Cases from
elsewhere: `python -m benchmarks.verdicts FOLDER…`.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from yaml import YAMLError

from benchmarks.rivals import others
from benchmarks.rivals.answer import Answer, Score, score
from benchmarks.rivals.case import HARMLESS, Case, sets
from benchmarks.rivals.keyword_tables import keyword_tables
from dsdoctor.logs.diagnose import diagnose
from dsdoctor.logs.rules import load_rules

Rows = dict[str, list[Answer]]


def main(further: Sequence[str] = ()) -> str:
    """Ask every diagnoser about every set of cases."""
    parts, notes = [], []
    running, absent = _others()
    for title, cases in sets(Path(each) for each in further).items():
        rows, said = _ask_all(cases, running)
        notes += said
        harmless = sum(case.harmless for case in cases)
        parts.append(
            f"### {title} ({len(cases) - harmless} failures, {harmless} harmless logs)\n\n{_table(cases, rows)}"
        )
    notes += [f"Not run: {name}: {why}." for name, why in absent.items()]
    return "\n\n".join([*parts, *dict.fromkeys(notes)])


def _others() -> tuple[list[others.Other], dict[str, str]]:
    """The other programs that are here, and why the rest is not."""
    running, absent = [], {}
    for name in others.VARIABLES:
        try:
            running.append(others.find(name))
        except others.NotRunError as error:
            absent[name] = str(error)
    return running, absent


def _ask_all(cases: Sequence[Case], running: Sequence[others.Other]) -> tuple[Rows, list[str]]:
    """The answers of all by the name of the row, and what has to be said about them."""
    diagnosers: Mapping[str, Callable[[Case], Answer]] = {"dsdoctor diagnose": _ours(), **keyword_tables()}
    rows: Rows = {}
    notes = []
    for name, answer in diagnosers.items():
        answer(cases[0])  # once for nothing: the first log pays for what is made only once
        rows[name] = [answer(case) for case in cases]
    for other in running:
        try:
            told = others.ask(other, cases)
        except others.NotRunError as error:
            notes.append(f"Not run: {other.name}: {error}.")
            continue
        called = f"{other.name} {other.commit[:7]}"
        rows[called] = others.answers(other, cases, told)
        if other.unnamed and any(case.line for case in cases):
            rows[f"{called}, “an exception” on the right line is right"] = others.read_by_a_person(
                other, cases, told, rows[called]
            )
        errors = Counter(each["error"] for each in told if "error" in each)
        notes += [f"{other.name} failed on {count} logs: {error}." for error, count in errors.items()]
    return rows, notes


def _ours() -> Callable[[Case], Answer]:
    rules = load_rules()

    def answer(case: Case) -> Answer:
        log = case.log.encode()
        began = time.perf_counter()
        verdict = diagnose([("train.log", [log])], rules).verdict
        seconds = time.perf_counter() - began
        assert verdict is not None
        causes = frozenset({verdict.cause} - {HARMLESS})
        return Answer(causes, verdict.text or "", seconds)

    return answer


def _table(cases: Sequence[Case], rows: Rows) -> str:
    lines = [
        "| diagnoser | root cause right | line right | says something | harmless logs left alone | ms a log |",
        "|---|---|---|---|---|---|",
    ]
    lines += [f"| {name} | {_cells(score(cases, answers))} |" for name, answers in rows.items()]
    return "\n".join(lines)


def _cells(counted: Score) -> str:
    shares = (
        (counted.named, counted.failures),
        (counted.cited, counted.citable),
        (counted.said, counted.failures),
        (counted.quiet, counted.harmless),
    )
    return " | ".join([*(f"{part / whole:.0%}" if whole else "–" for part, whole in shares), _ms(counted.seconds)])


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.2f}" if seconds < 0.01 else f"{1000 * seconds:.0f}"


if __name__ == "__main__":
    try:
        print(main(sys.argv[1:]))
    except (OSError, ValueError, YAMLError) as error:
        sys.exit(str(error))
