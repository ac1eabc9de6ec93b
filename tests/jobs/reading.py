"""What the tests of scripts share: where they lie, and what is found in one without any host."""

from __future__ import annotations

from pathlib import Path

from dsdoctor.checks import run_checks
from dsdoctor.checks.engine import Outcome
from dsdoctor.jobs.load_any import load_any
from dsdoctor.jobs.script.model import Script
from dsdoctor.jobs.script.read import read_script

SCRIPTS = Path(__file__).parent / "scripts"


def read(text: str, *arguments: str) -> Script:
    return read_script(text, "job.sh", arguments=arguments or None)


def words(text: str) -> list[str]:
    """The arguments of the only call of a script."""
    (call,) = read(text).calls
    return [word.text for word in call.arguments]


def judged(path: Path) -> Outcome:
    outcome = run_checks(None, load_any(str(path)))
    assert not outcome.crashed, outcome.crashed[0].traceback
    return outcome
