"""The jobs that come with dsdoctor: nothing is found in them, whatever profile is taken."""

from __future__ import annotations

from pathlib import Path

import pytest

from dsdoctor.checks import run_checks
from dsdoctor.jobs.load_any import load_any

SHIPPED = sorted((Path(__file__).parents[2] / "launch").glob("*.yaml"))
PROFILES = [(path, profile) for path in SHIPPED for profile in (None, *load_any(str(path)).job.profiles)]


def test_there_are_some() -> None:
    assert len(SHIPPED) >= 3
    assert len(PROFILES) > len(SHIPPED)


@pytest.mark.parametrize(("path", "profile"), PROFILES, ids=lambda one: getattr(one, "stem", one))
def test_nothing_is_found_in_a_job_that_is_shipped(path: Path, profile: str | None) -> None:
    outcome = run_checks(None, load_any(str(path), profile))
    assert [(finding.name, finding.message) for finding in outcome.findings] == []
    assert not outcome.crashed
