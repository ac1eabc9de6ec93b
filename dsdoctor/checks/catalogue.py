"""The pages of the checks: what `explain` prints, the README's table, the documentation, all from the docstrings."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass

from dsdoctor.checks.casefile import Case, Expected, cases
from dsdoctor.checks.engine import Check, discover, find
from dsdoctor.checks.unasked import option_for
from dsdoctor.report.model import Severity

_HEADING = re.compile(r"^## (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Page:
    """What there is to say about a check. `sections` are the headings of its docstring with their texts, in order."""

    name: str
    severity: Severity
    since: str
    summary: str
    sections: tuple[tuple[str, str], ...]
    per_host: bool
    option: str | None = None  # without which it has nothing to look at: --network, --deep, --job JOB


@dataclass(frozen=True)
class Example:
    """A case of a check with a finding: the condition in words, and what the check says."""

    why: str
    severity: Severity
    message: str
    hosts: tuple[str, ...]
    commands: tuple[str, ...]
    env: dict[str, str]


def catalogue() -> tuple[Page, ...]:
    """The pages of all checks, by name."""
    return tuple(_page(check) for check in discover().values())


def page(name: str) -> Page:
    """The page of one check. Raises UnknownCheckError."""
    return _page(find(name))


def example_for(name: str) -> Example:
    """The first case of a check that has a finding; the tests prove that the check says just this.

    Raises:
        UnknownCheckError: no check has the name.
    """
    check = find(name)
    case, expected = _first_finding(cases(name))
    return Example(
        why=case.why,
        severity=expected.severity or check.severity,
        message=expected.message or "",
        hosts=expected.hosts,
        commands=expected.commands,
        env=expected.env,
    )


def _first_finding(known: tuple[Case, ...]) -> tuple[Case, Expected]:
    return next((case, expected) for case in known for expected in case.expect if expected.message)


def _page(check: Check) -> Page:
    text = inspect.cleandoc(check.function.__doc__ or "")
    summary, *rest = _HEADING.split(text)
    sections = tuple((title, body.strip()) for title, body in zip(rest[::2], rest[1::2], strict=True))
    summary = " ".join(summary.split())
    return Page(check.name, check.severity, check.since, summary, sections, check.per_host, option_for(check))
