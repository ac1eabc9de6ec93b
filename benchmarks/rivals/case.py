"""Logs whose root cause is known: those of the tests, and any folder of files like them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

HARMLESS = "none"
TESTS = Path(__file__).resolve().parents[2] / "tests"


@dataclass(frozen=True)
class Case:
    """A log, its root cause and further right answers, and a text of the line to point at (empty: none is named)."""

    name: str
    log: str
    cause: str
    also: frozenset[str]
    line: str

    @property
    def harmless(self) -> bool:
        """Whether nothing is wrong with the job."""
        return self.cause == HARMLESS

    @property
    def accepted(self) -> frozenset[str]:
        """All that is right: the cause, and what the log alone cannot tell from it."""
        return self.also | {self.cause}


def sets(others: Iterable[Path] = ()) -> dict[str, list[Case]]:
    """The cases by where they are from; sets that are not there are left out.

    Args:
        others: further folders of case files, or single ones, taken together as a set of their own.

    Raises:
        OSError: one of `others` cannot be read.
        ValueError: one of `others` is no case file.
    """
    found = {
        "Known cases: the rules were written beside them": written(_own("cases")),
        "Blind cases: from public threads, collected without a look at the rules": written(_own("blind")),
        "Logs of runs that were made to fail, and of healthy ones": [*_indexed(), *_provoked(), *_healthy()],
        "Cases named on the command line": written(others),
    }
    return {title: cases for title, cases in found.items() if cases}


def written(places: Iterable[Path]) -> list[Case]:
    """The case files in these folders, and those named themselves."""
    files = [file for place in places for file in (sorted(place.rglob("*.yaml")) if place.is_dir() else [place])]
    return [_case(file) for file in files]


def _own(name: str) -> list[Path]:
    folder = TESTS / "logs" / name
    return [folder] if folder.is_dir() else []


def _case(file: Path) -> Case:
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    if not isinstance(content, Mapping) or not {"root_cause", "log"} <= content.keys():
        raise ValueError(f"{file}: a case has the keys root_cause and log")
    also = frozenset(content.get("also_accept") or [])
    return Case(file.stem, content["log"], content["root_cause"], also, (content.get("first_cause_line") or "").strip())


def _indexed() -> list[Case]:
    folder = TESTS / "logs" / "recorded"
    if not (folder / "index.yaml").exists():
        return []
    index = yaml.safe_load((folder / "index.yaml").read_text(encoding="utf-8"))
    return [Case(name, _read(folder / f"{name}.log"), known["cause"], frozenset(), "") for name, known in index.items()]


def _provoked() -> list[Case]:
    if not (TESTS / "provoked" / "failures").is_dir():
        return []
    from tests.provoked.failure import failures

    return [
        Case(name, _read(each.log), each.cause, frozenset(each.also), each.line)
        for name, each in failures().items()
        if each.log.exists()
    ]


def _healthy() -> list[Case]:
    return [
        Case(file.stem, _read(file), HARMLESS, frozenset(), "")
        for file in sorted((TESTS / "logs" / "healthy").glob("*.log"))
    ]


def _read(file: Path) -> str:
    return file.read_bytes().decode("utf-8", "replace")
