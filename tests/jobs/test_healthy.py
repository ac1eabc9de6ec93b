"""Scripts that are right, of many projects' kinds: nothing is said of them, and nothing is left unjudged."""

from __future__ import annotations

from pathlib import Path

import pytest

from dsdoctor.jobs.load_any import load_any
from tests.jobs.reading import SCRIPTS, judged

HEALTHY = sorted((SCRIPTS / "healthy").iterdir())


def test_there_are_enough() -> None:
    assert len(HEALTHY) >= 12


@pytest.mark.parametrize("path", HEALTHY, ids=lambda path: path.stem)
def test_nothing_is_found_in_a_healthy_script(path: Path) -> None:
    outcome = judged(path)
    assert [(finding.name, finding.message) for finding in outcome.findings] == []
    assert [(skip.name, skip.reason) for skip in outcome.skipped] == []


@pytest.mark.parametrize("path", HEALTHY, ids=lambda path: path.stem)
def test_its_calls_are_seen(path: Path) -> None:
    assert all(stage.name for stage in load_any(str(path)).stages)
