"""A profile that carries out some of a job's stages: they are counted from 1, and others are not known to it."""

from __future__ import annotations

import pytest

from dsdoctor.jobs.job import parse_job, resolve
from dsdoctor.yamlfile import FileError

JOB = """
name: j
script: train.py
args: {index: "${stage_index}", lr: 1}
stages: [{name: a}, {name: b}, {name: c}]
profiles:
  part:
    only: [c, a]
    stages: {c: {lr: 2}}
  all: {}
"""


def test_the_stages_of_a_profile_stand_in_the_order_of_the_job():
    job = parse_job(JOB, "j.yaml")
    stages = resolve(job, "j.yaml", profile="part", settings=["a.lr=3"]).stages
    assert [(stage.name, stage.index, stage.args["lr"]) for stage in stages] == [("a", 1, 3), ("c", 2, 2)]
    assert [stage.name for stage in resolve(job, "j.yaml", profile="all").stages] == ["a", "b", "c"]
    assert [stage.name for stage in resolve(job, "j.yaml").stages] == ["a", "b", "c"]


def test_a_setting_of_a_stage_that_is_left_out_is_refused():
    with pytest.raises(FileError, match="unknown name b; there are: a, c"):
        resolve(parse_job(JOB, "j.yaml"), "j.yaml", profile="part", settings=["b.lr=3"])


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("only: [c, a]", "only: [c, d]", r"profiles\.part\.only: unknown name d; there are: a, b, c"),
        ("stages: {c:", "stages: {b:", r"profiles\.part\.stages: unknown name b; there are: c, a"),
    ],
)
def test_names_of_stages_that_a_profile_does_not_have(old: str, new: str, said: str):
    with pytest.raises(FileError, match=said):
        parse_job(JOB.replace(old, new), "j.yaml")
