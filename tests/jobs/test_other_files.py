"""Configs and programs given as a job: DeepSpeed's JSON, accelerate's YAML, Python with its settings in code."""

from __future__ import annotations

from pathlib import Path

import pytest

from dsdoctor.jobs.dsconfig import line_of
from dsdoctor.jobs.load_any import kind_of, load_any
from dsdoctor.jobs.program import read_program
from dsdoctor.jobs.relaxed import parse_relaxed
from dsdoctor.jobs.unknown import Unknown
from tests.jobs.reading import SCRIPTS, judged


def test_a_deepspeed_config_alone_is_not_compared_with_arguments_that_nobody_knows(tmp_path: Path) -> None:
    path = tmp_path / "ds.json"
    text = '{"fp16": {"enabled": true}, "bf16": {"enabled": true}, // both\n "train_batch_size": "auto"}'
    path.write_text(text, encoding="utf-8")
    found = {finding.name: finding.severity.value for finding in judged(path).findings}
    assert found == {"precision-disagrees": "error", "config-is-not-json": "info"}
    path.write_text('{"fp16": {"enabled": true}, "scheduler": {"type": "WarmupLR", "params": {}}}', encoding="utf-8")
    assert judged(path).findings == ()


def test_what_is_passed_over_keeps_the_lines_of_the_rest() -> None:
    text = '{\n // a\n "a": {"b": 1,},\n /* x\n y */ "c": "no // comment, ]" # z\n}'
    config = parse_relaxed(text, "ds.json")
    assert config.value == {"a": {"b": 1}, "c": "no // comment, ]"}
    assert [(place.line, place.what) for place in config.loose] == [
        (2, "a comment"), (3, "a comma before a closing bracket"), (4, "a comment"), (5, "a comment"),
    ]  # fmt: skip
    assert line_of(config, "c") == 5


def test_the_real_hjson_takes_what_is_passed_over() -> None:
    hjson = pytest.importorskip("hjson")
    text = '{\n // a\n "a": {"b": 1,},\n /* x */ "c": [1, 2,], # z\n "d": true\n}'
    assert hjson.loads(text) == parse_relaxed(text, "ds.json").value


def test_an_accelerate_config_with_settings_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "acc.yaml"
    path.write_text(
        "compute_environment: LOCAL_MACHINE\ndistributed_type: DEEPSPEED\nmixed_precision: bf16\nnum_machines: 2\n"
        "num_processes: 8\ndeepspeed_config:\n  zero_stage: 3\n  offload_optimizer_device: cpu\n"
        "  gradient_accumulation_steps: 4\n",
        encoding="utf-8",
    )
    job = load_any(str(path))
    assert job.deepspeed is not None
    assert job.deepspeed.value == {
        "zero_optimization": {"stage": 3, "offload_optimizer": {"device": "cpu"}},
        "gradient_accumulation_steps": 4,
    }
    assert job.accelerate is not None
    assert job.accelerate.line_of("num_machines") == 4
    assert judged(path).findings == ()


def test_an_accelerate_config_that_names_another_file(tmp_path: Path) -> None:
    (tmp_path / "ds.json").write_text('{"zero_optimization": {"stage": 2},}', encoding="utf-8")
    path = tmp_path / "acc.yaml"
    path.write_text(
        "distributed_type: DEEPSPEED\nnum_machines: 1\nmixed_precision: fp16\n"
        "deepspeed_config:\n  deepspeed_config_file: ds.json\n",
        encoding="utf-8",
    )
    found = {finding.name: finding.evidence[0].line for finding in judged(path).findings}
    assert found == {"accelerate-settings-ignored": 3, "config-is-not-json": 1}


def test_a_program_with_its_settings_in_code() -> None:
    job = load_any(str(SCRIPTS / "qwen/finetune_lora_ner_deepspeed.py"))
    (stage,) = job.stages
    assert stage.args["per_device_train_batch_size"] == 8
    assert stage.lines["learning_rate"] == 13
    assert isinstance(stage.args["bf16"], Unknown)
    assert stage.args["bf16"].reason == "line 14 computes it: torch.cuda.is_bf16_supported()"


@pytest.mark.parametrize(
    ("text", "reads"),
    [
        ("import torch\n", False),
        ("import sys\nprint(sys.argv)\n", True),
        ("from transformers import HfArgumentParser\n", True),
        ("import own\n", None),
        ("from .own import x\n", None),
        ("import torch\nexec(open('x').read())\n", None),
        ("import fire\nfire.Fire(print)\n", True),
    ],
)
def test_whether_a_program_reads_its_arguments(text: str, reads: bool | None) -> None:
    assert read_program(text, "t.py").reads_arguments is reads


def test_a_parser_in_parts_is_not_taken_for_whole() -> None:
    whole = "import argparse\np = argparse.ArgumentParser()\np.add_argument('--a-b', '-x')\np.parse_args()\n"
    program = read_program(whole, "t.py")
    assert program.whole
    assert program.options == {"a_b", "x"}
    assert program.one_dash == {"x"}
    for more in ("p.add_argument(*names)\n", "add_training_args(p)\nparser = p\n", "p.add_subparsers()\n"):
        assert not read_program(whole + more.replace("(p)", "(parser)"), "t.py").whole


@pytest.mark.parametrize(
    ("suffix", "text", "kind"),
    [
        ("", "#!/bin/bash\n", "shell"),
        ("", "#!/usr/bin/env python3\n", "python"),
        (".config", '{"a": 1}', "json"),
        ("", "  {", "json"),
        (".job", "#SBATCH -N 1\nsrun x\n", "shell"),
        (".txt", "deepspeed train.py\n", "shell"),
        (".txt", "words\n", None),
        (".sh", "", "shell"),
    ],
)
def test_what_kind_of_file_it_is(suffix: str, text: str, kind: str | None) -> None:
    assert kind_of(suffix, text) == kind
