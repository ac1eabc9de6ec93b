"""What is mended is no worse, stays as it is when it is mended again, and is taken by the real libraries."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path

from hypothesis import given, settings

from dsdoctor.checks.mending import Mended, mended_configs
from dsdoctor.jobs.load_any import load_any
from dsdoctor.report.model import Finding, Severity
from tests.judges.judge import Judge
from tests.judges.pairs import Pair, draw
from tests.judges.test_agreement import bench, few, pairs, pytestmark
from tests.judges.told import host, told, write_job

__all__ = ["bench", "pytestmark"]  # pytest finds them by name


def mended(pair: Pair, folder: Path) -> Mended | None:
    """What mending makes of the pair's config."""
    job = load_any(str(write_job(pair, folder)))
    found = list(mended_configs(job, host(), lambda path: Path(path).read_text(encoding="utf-8")))
    assert len(found) < 2
    return found[0] if found else None


def errors(pair: Pair, folder: Path) -> list[Finding]:
    return [finding for finding in told(pair, folder).findings if finding.severity is Severity.ERROR]


def as_mended(pair: Pair, after: str) -> Pair:
    """The pair with another text of its config."""
    return replace(pair, config=json.loads(after), trailing=False)


@settings(few, max_examples=30)
@given(pair=pairs())
def test_less_is_wrong_afterwards_and_twice_changes_nothing(pair: Pair) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = mended(pair, folder)
        if made is None:
            return
        assert made.before == pair.text
        assert (folder / "ds_config.json").read_text() == pair.text, "the original is as it was"
        before = told(pair, folder).findings
        (folder / "ds_config.json").write_text(made.after)
        job = load_any(str(folder / "run.sh"))
        assert not list(mended_configs(job, host(), lambda path: Path(path).read_text()))
        if made.config.loose:
            return  # still no JSON: the script calls DeepSpeed itself, which takes it
        after = told(as_mended(pair, made.after), folder).findings
        wrong = [[one for one in found if one.severity is Severity.ERROR] for found in (before, after)]
        assert len(wrong[1]) <= len(wrong[0])
        assert {one.name for one in wrong[1]} <= {one.name for one in wrong[0]}


@few
@given(pair=pairs())
def test_the_judges_take_what_is_mended_whole(bench: Judge, pair: Pair) -> None:
    with tempfile.TemporaryDirectory() as name:
        made = mended(pair, Path(name))
        if made is None or made.config.loose:
            return
        after = as_mended(pair, made.after)
        if not errors(after, Path(name)):
            assert bench.ask(after)["raised"] is None, made.after


def test_enough_is_mended_for_that_to_mean_something() -> None:
    import random

    whole = 0
    with tempfile.TemporaryDirectory() as name:
        for seed in range(60):
            pair = draw(random.Random(seed).choice)
            made = mended(pair, Path(name))
            whole += made is not None and not made.config.loose and not errors(as_mended(pair, made.after), Path(name))
    assert whole >= 4
