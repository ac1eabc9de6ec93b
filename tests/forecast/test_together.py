"""The memory forecast against two ranks that train together here: DeepSpeed's stages, DDP and FSDP over gloo."""

from __future__ import annotations

import pytest

pytest.importorskip("deepspeed")

from benchmarks.memory_ranks import TOGETHER, settings, together
from dsdoctor.jobs.dsconfig import parse_config
from dsdoctor.jobs.forecast.training import Training, training_of
from dsdoctor.jobs.job import Job, ResolvedJob, Stage, StageSettings

# One start of the ranks takes half a minute of a CPU; each of these shows what the others do not.
SHOWN = (
    "LLaMA 6M, short, FSDP, fp32",  # gloo's reduce-scatter has a copy of its own
    "LLaMA 6M, ZeRO-2, bf16",
    "LLaMA 6M, short, ZeRO-1, bf16",
    "LLaMA 6M, short, ZeRO-2, offloaded",
    "LLaMA 6M, short, ZeRO-3, offloaded",
    "LLaMA 6M, short, ZeRO-2, LoRA, large bucket",
)
LOOSE = {"LLaMA 6M, short, FSDP, fp32": 0.08}


@pytest.mark.slow
def test_two_ranks() -> None:
    found = {row.name: row.error for row in together(list(SHOWN))}
    assert set(found) == set(SHOWN)
    assert {name: error for name, error in found.items() if abs(error) > LOOSE.get(name, 0.02)} == {}


@pytest.mark.parametrize(
    ("name", "training"), [(name, training) for name, _, training in TOGETHER if training.engine == "deepspeed"]
)
def test_the_config_that_is_measured_is_the_config_that_is_forecast(name: str, training: Training) -> None:
    import json

    job = Job(name="j", stages=(Stage(name="s"),), script="train.py")
    stage = StageSettings("s", 1, {})
    config = parse_config(json.dumps(settings(training)), "ds.json")
    read = training_of(ResolvedJob(job, "j.yaml", ".", None, (stage,), {}, config), stage, training.ranks)
    assert read.zero == training.zero, name
    assert (read.precision, read.micro_batch, read.accumulation) == (
        training.precision,
        training.micro_batch,
        training.accumulation,
    )
