"""launch/order_1.yaml says what the training package understands: every profile, every stage."""

from __future__ import annotations

from pathlib import Path

import pytest
from continual import flags, orders
from continual.ranks import Place

from dsdoctor.jobs.job import ResolvedJob, parse_job, resolve
from dsdoctor.plan.words import arguments
from tests.continual.conftest import LAUNCH

pytestmark = pytest.mark.train
FILE = LAUNCH / "order_1.yaml"


def resolved(profile: str | None, *settings: str) -> ResolvedJob:
    source = str(FILE)
    return resolve(parse_job(FILE.read_text(), source), source, profile=profile, settings=settings)


@pytest.mark.parametrize("profile", [None, "tiny", "benchmark"])
def test_every_stage_is_one_that_the_package_accepts(tmp_path: Path, profile: str | None):
    job = resolved(profile, *([f"data_dir={tmp_path}"] if profile == "benchmark" else []))
    assert tuple(stage.name for stage in job.stages) == orders.tasks_of("order_1")
    for stage in job.stages:
        words = {
            "stage": stage.name,
            "stage_index": str(stage.index),
            "output_dir": f"/run/{stage.index}",
            "previous_output_dir": f"/run/{stage.index - 1}" if stage.index > 1 else "",
            "precision": "fp32",
        }
        args = flags.parser().parse_args(arguments(stage.args, words, stage.name))
        assert flags.check(args, Place("a", 0, 0, 3))[-1] == stage.name
        assert args.global_batch_size in (16, 64)


def test_the_default_needs_nothing_but_the_package_index():
    for stage in resolved(None).stages:
        assert (stage.args["model_name_or_path"], stage.args["data"]) == ("builtin", "builtin")
        assert "data_dir" not in stage.args


def test_what_a_stage_leaves_is_what_the_job_looks_for():
    assert all(set(stage.outputs) >= {"adapter", "results.json", "summary.txt"} for stage in resolved(None).stages)
