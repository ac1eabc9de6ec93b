"""Checks: pure functions of recorded facts and of the job's files, one a file, found by their file names.

To add one, copy a file of this folder and its cases in `cases/`: nothing else is edited. The engine is in `engine.py`,
what `explain` prints in `catalogue.py`.
"""

from dsdoctor.checks.catalogue import Page, catalogue, example_for, page
from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import Check, Outcome, UnknownCheckError, check, run_checks

__all__ = [
    "Check",
    "JobContext",
    "Outcome",
    "Page",
    "UnknownCheckError",
    "catalogue",
    "check",
    "example_for",
    "page",
    "run_checks",
]
