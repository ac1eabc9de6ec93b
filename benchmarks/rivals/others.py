"""The diagnosers of other people, run from checkouts that are named in the environment and are never kept in ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from benchmarks.rivals.answer import UNKNOWN, Answer
from benchmarks.rivals.case import Case

HERE = Path(__file__).parent
VARIABLES = {"nvrx": "DSDOCTOR_RIVAL_NVRX", "nccl-doctor": "DSDOCTOR_RIVAL_NCCL_DOCTOR"}
LIMIT = 1200.0  # seconds for all logs


class NotRunError(Exception):
    """Why another diagnoser could not be run, for people to read."""


@dataclass(frozen=True)
class Other:
    """One of them: where it is, and what its answers mean."""

    name: str
    checkout: Path
    commit: str
    means: dict[str, list[str]]
    unnamed: frozenset[str]  # answers that point at a line and name no failure


def find(name: str) -> Other:
    """The other diagnoser of that name.

    Raises:
        NotRunError: its variable is not set, names no folder, or the checkout is another commit than the map of its
            answers was made for.
    """
    known: dict[str, Any] = yaml.safe_load((HERE / "answers.yaml").read_text(encoding="utf-8"))[name]
    folder, wanted = os.environ.get(VARIABLES[name]), known["commit"]
    if not folder:
        raise NotRunError(f"{VARIABLES[name]} is not set; {known['repository']} at {wanted[:9]} is what it should name")
    checkout = Path(folder).resolve()
    if not checkout.is_dir():
        raise NotRunError(f"{VARIABLES[name]}={folder} is no folder")
    commit = _commit(checkout)
    if commit != wanted:
        raise NotRunError(f"{folder} is at {commit[:9]}, its answers are known for {wanted[:9]}: git checkout {wanted}")
    return Other(name, checkout, commit, known["means"], frozenset(known["unnamed"]))


def _commit(checkout: Path) -> str:
    asked = subprocess.run(
        ["git", "-C", str(checkout), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    return asked.stdout.strip() if asked.returncode == 0 else "no commit (not a git checkout)"


def ask(other: Other, cases: Sequence[Case]) -> list[dict[str, Any]]:
    """What it says of each case, as `inside.py` prints it.

    Raises:
        NotRunError: the program ended early or took too long.
    """
    with tempfile.TemporaryDirectory(prefix="dsdoctor-bench-") as name:
        paths = []
        for number, case in enumerate(cases):
            path = Path(name) / f"{number}.log"
            path.write_bytes(case.log.encode())
            paths.append(str(path))
        try:
            done = subprocess.run(
                [sys.executable, "-I", "-S", "-B", str(HERE / "inside.py"), other.name, str(other.checkout)],
                input=json.dumps(paths),
                capture_output=True,
                text=True,
                cwd=name,
                env={"PATH": os.defpath, "HOME": name, "TMPDIR": name},
                timeout=LIMIT,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise NotRunError(f"it took more than {LIMIT:.0f} s") from None
    told = [json.loads(line) for line in done.stdout.splitlines()]
    if done.returncode != 0 or len(told) != len(cases):
        last = done.stderr.strip().rpartition("\n")[2]
        raise NotRunError(f"it ended with {done.returncode} after {len(told)} of {len(cases)} logs: {last}")
    return told


def answers(other: Other, cases: Sequence[Case], told: Sequence[dict[str, Any]]) -> list[Answer]:
    """Its answers in our words."""
    found = []
    for case, each in zip(cases, told, strict=True):
        causes = {cause for answer in each["answers"] for cause in (UNKNOWN, *other.means.get(answer, ()))}
        lines, number = case.log.split("\n"), each["line"]
        line = lines[number - 1] if number is not None and 0 < number <= len(lines) else ""
        found.append(Answer(frozenset(causes), line, each["seconds"]))
    return found


def read_by_a_person(
    other: Other, cases: Sequence[Case], told: Sequence[dict[str, Any]], found: Sequence[Answer]
) -> list[Answer]:
    """The same answers, where one that only points at an error names its cause if it points at the right line."""
    return [
        replace(answer, causes=answer.causes | case.accepted)
        if other.unnamed.intersection(each["answers"]) and not case.harmless and answer.cites(case)
        else answer
        for case, each, answer in zip(cases, told, found, strict=True)
    ]
