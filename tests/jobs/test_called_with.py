"""A script's own arguments, given to check and to jobs --from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from dsdoctor.jobs.load_any import load_any
from dsdoctor.yamlfile import FileError
from tests.cli.conftest import run
from tests.jobs.reading import words

SCRIPT = """#!/bin/bash
set -e
out=$1 rank=${2:-4}
shift 2
deepspeed --num_gpus 2 train.py --output_dir "$out" --galore_rank $rank --fp16 $1 "${@:3}" --bf16 True "$2"
"""
FACTS = ("--facts", "tests/snapshots/composed/a100pair", "--select", "precision-disagrees", "--format", "json")


@pytest.fixture
def script(tmp_path: Path) -> Path:
    (tmp_path / "ds.json").write_text('{"fp16": {"enabled": true}, "train_micro_batch_size_per_gpu": "auto"}')
    path = tmp_path / "run.sh"
    path.write_text(SCRIPT.replace(' "${@:3}"', "").replace('"$2"', "--deepspeed ds.json"))
    return path


def test_what_the_caller_gives_is_judged(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = load_any(str(script), arguments=["out dir", "8", "False"])
    (stage,) = job.stages
    assert (stage.args["output_dir"], stage.args["galore_rank"], stage.args["fp16"]) == ("out dir", 8, "False")
    report = json.loads(run("check", "--job", script, *FACTS, "--", "out dir", "8", "False").stdout)
    assert "fp16.enabled" in " ".join(finding["message"] for finding in report["findings"])


def test_without_arguments_it_stays_open(script: Path) -> None:
    report = json.loads(run("check", "--job", script, *FACTS).stdout)
    assert report["findings"] == []
    assert "is not known" in report["skipped"][0]["reason"]


def test_a_job_file_is_made_with_them(script: Path) -> None:
    made = yaml.safe_load(run("jobs", "--from", script, "--", "o", "16", "True").stdout)
    assert made["args"] == {"output_dir": "o", "galore_rank": 16, "fp16": "True", "bf16": "True"}


@pytest.mark.parametrize(
    "command",
    [("check", "hosts.txt"), ("jobs", "order_1"), ("check", "--facts", "tests/snapshots/composed/a100pair", "--", "8")],
)
def test_arguments_of_no_script_are_refused(command: tuple[str, ...]) -> None:
    result = run(*command)
    assert result.exit_code == 2
    assert "arguments are those of the script" in result.stderr


def test_arguments_of_what_is_no_script_are_refused(tmp_path: Path) -> None:
    config = tmp_path / "ds.json"
    config.write_text('{"train_batch_size": 8}')
    with pytest.raises(FileError, match=r"no shell script.*\(8 16\).*--set"):
        load_any(str(config), arguments=["8", "16"])


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ('f() { shift; torchrun t.py "$@"; }; f a b c', ["b", "c"]),
        ("f() { torchrun t.py $# $2; }; f a b", ["2", "b"]),
        ("set -- a b; shift 5; torchrun t.py $1", ["a"]),
        ("set -- a b; torchrun t.py $10 ${10} x", ["a0", "x"]),
        ("set -euo pipefail; torchrun t.py ${1:-d}", ["d"]),
    ],
)
def test_parameters_of_functions_and_of_set(text: str, wanted: list[str]) -> None:
    assert words(text) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "set -- a b; while true; do shift; done; torchrun t.py $1",
        "set -- a b; if [ -n \"$X\" ]; then shift; fi; torchrun t.py $1",
        "set -- a b; shift $X; torchrun t.py $1",
        'set -- $@ b; torchrun t.py $2',
    ],
)  # fmt: skip
def test_parameters_that_nobody_can_tell_are_not_told(text: str) -> None:
    (word,) = words(text)
    assert hasattr(word, "reason")
