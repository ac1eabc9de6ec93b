"""Checks that were asked for by name and had nothing to look at: saying nothing would read as if they had passed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from dsdoctor.checks.context import JobContext
from dsdoctor.report.model import Skipped

if TYPE_CHECKING:
    from dsdoctor.checks.engine import Check

# The option by which each trial is made.
TRIALS = {"peers": "--network", "deep": "--deep"}


def option_for(check: Check) -> str | None:
    """The option without which `dsdoctor check` has nothing for a check to look at; None where it needs none."""
    if check.trial is not None:
        return TRIALS[check.trial]
    return "--job JOB" if _judges_a_job(check) else None


def not_run(asked: Iterable[Check], judged: set[str], *, with_job: bool) -> Iterator[Skipped]:
    """For each check that was asked for by name and is in no list of the outcome, why that is so."""
    for check in asked:
        if check.name in judged:
            continue
        option = option_for(check)
        if option is not None and (check.trial is not None or not with_job):
            yield Skipped(name=check.name, hosts=(), reason=f"it was not asked for: add {option}")
        else:
            yield Skipped(name=check.name, hosts=(), reason="nothing that it could judge is here")


def _judges_a_job(check: Check) -> bool:
    return any(required and kind is JobContext for kind, required in check.wants)
