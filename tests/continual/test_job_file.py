"""launch/order_1.yaml to order_6.yaml say what the training package understands: every profile, every stage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from continual import flags, orders
from continual.ranks import Place

from dsdoctor.jobs.job import ResolvedJob, parse_job, resolve
from dsdoctor.plan.words import arguments
from tests.continual.conftest import LAUNCH

pytestmark = pytest.mark.train
LONG = ("order_4", "order_5", "order_6")
# O-LoRA's scripts/long.sh, stage by stage: lamda_1, lamda_2
WEIGHTS = [(0, 0), *[(0.5, 0)] * 3, *[(0.5, 0.1)] * 2, (0.5, 0.3), (0.5, 0), (0.5, 0.1)]
WEIGHTS += [(5, 0), (5, 0), (5, 0.1), (5, 0), (5, 0.1), (5, 0.3)]


def resolved(order: str, profile: str | None, *settings: str) -> ResolvedJob:
    source = LAUNCH / f"{order}.yaml"
    return resolve(parse_job(source.read_text(), str(source)), str(source), profile=profile, settings=settings)


def test_the_order_of_ones_own_has_a_stage_for_each_task(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(LAUNCH)  # as the ranks have it: the folder of the job's code
    job = resolved("own_order", None)
    assert tuple(stage.name for stage in job.stages) == orders.find("orders/moods.yaml").tasks
    for stage in job.stages:
        words = {"stage": stage.name, "stage_index": str(stage.index), "output_dir": "o", "precision": "fp32"}
        words["previous_output_dir"] = "p" if stage.index > 1 else ""
        args = flags.parser().parse_args(arguments(stage.args, words, stage.name))
        assert flags.check(args, Place("a", 0, 0, 3))[-1] == stage.name


@pytest.mark.parametrize("order", orders.ORDERS)
@pytest.mark.parametrize("profile", [None, "tiny", "benchmark"])
def test_every_stage_is_one_that_the_package_accepts(tmp_path: Path, order: str, profile: str | None):
    job = resolved(order, profile, *([f"data_dir={tmp_path}"] if profile == "benchmark" else []))
    built_in = orders.find(order).on_builtin_data().tasks
    assert tuple(stage.name for stage in job.stages) == (orders.ORDERS[order] if profile == "benchmark" else built_in)
    assert len(built_in) == (7 if order in LONG else 4)
    for index, stage in enumerate(job.stages, 1):
        assert stage.index == index
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
        assert flags.order_of(args).name == order == job.name


def test_the_default_needs_nothing_but_the_package_index():
    for order in orders.ORDERS:
        for stage in resolved(order, None).stages:
            assert (stage.args["model_name_or_path"], stage.args["data"]) == ("builtin", "builtin")
            assert "data_dir" not in stage.args


def test_what_a_stage_leaves_is_what_the_job_looks_for():
    for order in orders.ORDERS:
        stages = resolved(order, "benchmark").stages
        assert all(set(stage.outputs) >= {"adapter", "results.json", "summary.txt"} for stage in stages)


def test_the_long_order_has_the_authors_weights():
    stages = resolved("order_6", "benchmark").stages
    assert [(stage.args["lamda_1"], stage.args["lamda_2"]) for stage in stages] == WEIGHTS


def test_the_six_files_differ_in_their_tasks_alone():
    def rest(order: str) -> dict[str, Any]:
        value = yaml.safe_load((LAUNCH / f"{order}.yaml").read_text())
        for key in ("name", "description", "stages"):
            del value[key]
        assert value["args"].pop("order") == order
        for profile in value["profiles"].values():
            for key in ("description", "only", "stages"):
                profile.pop(key, None)
        return value

    assert all(rest(order) == rest("order_1") for order in orders.ORDERS)
