"""`predict: last`: prediction after the last stage alone, in what is planned and in the job file made of a script."""

from __future__ import annotations

import pytest

from dsdoctor.jobs.job import parse_job, resolve
from dsdoctor.jobs.load_any import load_any
from dsdoctor.jobs.script.as_job import as_job_file
from dsdoctor.plan.build import Wishes, plan
from dsdoctor.plan.copies import Paths
from tests.jobs.reading import SCRIPTS
from tests.plan.clusters import two_hosts

JOB = """
name: order
script: run.py
args: {do_train: true, %s: true}
predict: %s
stages: [{name: one}, {name: two, args: {lr: 1}}, {name: three}]
profiles: {short: {only: [one, two]}}
"""


@pytest.mark.parametrize("name", ["do_predict", "--do_predict", "do-predict"])
@pytest.mark.parametrize(
    ("predict", "profile", "predicting"),
    [
        ("last", None, ["three"]),
        ("every", None, ["one", "two", "three"]),
        ("last", "short", ["two"]),  # the last that is carried out
    ],
)
def test_the_stages_that_predict(name: str, predict: str, profile: str | None, predicting: list[str]) -> None:
    job = resolve(parse_job(JOB % (f'"{name}"', predict), "job.yaml"), "job.yaml", profile=profile)
    assert [stage.name for stage in job.stages if name in stage.args] == predicting
    assert all(stage.args["do_train"] is True for stage in job.stages)


def test_the_job_file_made_of_a_script_predicts_after_the_last_stage_unless_asked() -> None:
    text = as_job_file(load_any(str(SCRIPTS / "olora/scripts/order_1.sh")))
    made = resolve(parse_job(text, "job.yaml"), "job.yaml")
    assert len(made.stages) > 1
    assert ["do_predict" in stage.args for stage in made.stages] == [False] * (len(made.stages) - 1) + [True]
    asked = resolve(parse_job(text.replace("predict: last", "predict: every"), "job.yaml"), "job.yaml")
    assert all(stage.args["do_predict"] is True for stage in asked.stages)


def test_prediction_after_the_last_stage_alone_is_what_is_launched() -> None:
    job = resolve(parse_job(JOB % ("do_predict", "last"), "launch/order.yaml"), "launch/order.yaml")
    planned = plan(job, two_hosts(), "order-1", Paths("/runs/order-1", "/code", "/usr/bin/python3"), Wishes())
    for stage in planned.stages:
        for name in ("a", "b"):
            argv = stage.command(name).argv
            assert ("--do_predict" in argv) is (stage.name == "three")
            assert "--do_train" in argv
