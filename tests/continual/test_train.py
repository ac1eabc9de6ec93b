"""A stage from flags to folder, in this process, on the tiny encoder."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest
from continual import flags, trainer
from continual.ranks import Place
from continual.train import main

from tests.continual.conftest import stage_flags, write_benchmark

pytestmark = pytest.mark.train


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


def logged(out: str) -> list[dict[str, float]]:
    return [ast.literal_eval(line) for line in out.splitlines() if line.startswith("{")]


@pytest.mark.parametrize("method", ["olora", "seqlora"])
def test_two_stages(encoder: Path, benchmark: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], method: str):
    for stage in (1, 2):
        wanted = stage_flags(encoder, benchmark, tmp_path, stage, method=method, max_steps=12)
        assert main(wanted) == 0, capsys.readouterr().err
        captured = capsys.readouterr()
        lines = logged(captured.out)
        assert [line["learning_rate"] for line in lines] == [0.02] * 12
        assert [(line["step"], line["max_steps"]) for line in lines] == [(step, 12) for step in range(1, 13)]
        assert sum(line["loss"] for line in lines[-3:]) < 0.8 * sum(line["loss"] for line in lines[:3])
        assert ("penalty" in lines[0]) == (method == "olora" and stage == 2)
        assert captured.out.startswith("continual: host ")
    folder = tmp_path / "2"
    names = ["1-dbpedia", "2-amazon"] if method == "olora" else ["all"]
    assert sorted(path.name for path in (folder / "adapter").iterdir() if path.is_dir()) == names
    results = json.loads((folder / "results.json").read_text())
    assert [len(row) for row in results["accuracy"]] == [1, 2]
    assert results["average"] == pytest.approx(sum(results["accuracy"][1]) / 2)
    assert results["accuracy"][1][1] > 60  # two labels, words of their own
    everything = json.loads((folder / "all_results.json").read_text())
    assert everything["predict_exact_match_for_amazon"] == results["accuracy"][1][1]
    assert everything["train_samples"] == 40
    summary = (folder / "summary.txt").read_text()
    assert "2 amazon" in summary
    assert summary in captured.out


def test_a_learning_rate_that_bursts_ends_in_one_line(
    encoder: Path, benchmark: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(stage_flags(encoder, benchmark, tmp_path, learning_rate=1e30)) == 1
    said = capsys.readouterr().err
    assert said.count("continual: ") == 1
    assert "continual: health: rank 0" in said
    assert "loss is nan at step 2; wanted a finite number" in said
    assert not (tmp_path / "1").exists()


def test_parameters_that_do_not_move_end_in_one_line(
    encoder: Path,
    benchmark: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setattr(trainer.torch.optim.AdamW, "step", lambda *_, **__: None)
    assert main(stage_flags(encoder, benchmark, tmp_path)) == 1
    assert "no trainable parameter has changed by step 2, learning rate 0.02" in capsys.readouterr().err


def test_other_settings_than_the_stage_before(
    encoder: Path, benchmark: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(stage_flags(encoder, benchmark, tmp_path, max_steps=2)) == 0
    other_data = write_benchmark(tmp_path / "data", test=11)
    for changed, said in (
        ({"seed": 5}, "seed was 0, this stage has 5"),
        ({"method": "seqlora"}, "method was olora, this stage has seqlora"),
        ({"num_hidden_layers": 1}, "base was"),
        ({"lora_r": 4}, "lora was"),
        ({"data_dir": other_data}, "data was"),
        ({"previous_output_dir": tmp_path / "0"}, "no such folder on this host"),
    ):
        capsys.readouterr()
        assert main(stage_flags(encoder, benchmark, tmp_path, 2, **changed)) == 1
        captured = capsys.readouterr().err
        assert captured.startswith(f"continual: --previous_output_dir {tmp_path}")
        assert said in captured
    assert not (tmp_path / "2").exists()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"learning_rate": "-1"}, "argument --learning_rate: '-1': wanted a number above 0"),
        ({"learning_rate": "nan"}, "'nan': wanted a number above 0"),
        ({"seed": "1.5"}, "argument --seed: '1.5': wanted a whole number of at least 0"),
        ({"nonsense": "1"}, "unrecognized arguments: --nonsense 1"),
        ({"max_step": "5"}, "unrecognized arguments: --max_step 5"),
        ({"task": "amazon"}, "--task amazon: stage 1 of order_1 is dbpedia"),
        ({"previous_output_dir": "x"}, "--previous_output_dir 'x': wanted none in stage 1"),
        ({"stage_index": 2, "task": "amazon"}, "--previous_output_dir '': wanted the folder of the stage before"),
        ({"lr_scheduler_type": "polynomial"}, "wanted one of constant, constant_with_warmup, linear, cosine"),
        ({"warmup_steps": 3}, "--warmup_steps 3: has no effect with --lr_scheduler_type constant"),
        ({"per_device_train_batch_size": 3, "gradient_accumulation_steps": 2}, "--global_batch_size 8: "),
        ({"data_dir": "/nowhere"}, "--data_dir /nowhere: no such folder"),
        ({"data": "builtin"}, "not allowed with argument"),
    ],
)
def test_flags_that_cannot_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changed: dict[str, object], said: str
):
    with pytest.raises(SystemExit) as ended:
        main(stage_flags(tmp_path, tmp_path, tmp_path, **changed))
    assert ended.value.code == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("continual: ")
    assert said in captured.err
    assert captured.out == ""


def chosen(order: object, task: str, stage: int, *data: object) -> tuple[str, ...]:
    """The tasks of a stage that these flags choose."""
    words = ["--order", order, "--task", task, "--stage_index", stage, "--output_dir", "x"]
    words += ["--model_name_or_path", "m", *data]
    words += ["--previous_output_dir", "y"] if stage > 1 else []
    return flags.check(flags.parser().parse_args([str(word) for word in words]), Place("a"))


def test_on_built_in_data_a_long_order_has_the_seven_tasks_with_a_stand_in():
    seven = ("yelp", "amazon", "IMDB", "SST-2", "dbpedia", "agnews", "yahoo")
    assert chosen("order_6", "yahoo", 7, "--data", "builtin") == seven
    with pytest.raises(flags.ContinualError, match="--task MNLI: stage 3 of order_6 is IMDB"):
        chosen("order_6", "MNLI", 3, "--data", "builtin")
    with pytest.raises(flags.ContinualError, match="--order order_1: dbpedia names no data of its own; wanted --data"):
        chosen("order_1", "dbpedia", 1)


def test_an_order_that_names_its_data_needs_no_flag_for_it(tmp_path: Path):
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\ntasks: [{name: a, builtin: reuters-r8}, {name: b, folder: x}, c]\n")
    assert chosen(path, "b", 2) == ("a", "b")
    with pytest.raises(flags.ContinualError, match="c names no data of its own"):
        chosen(path, "c", 3)
    with pytest.raises(flags.ContinualError, match=r"mine\.yaml:2: c names no data, and nothing stands in for it"):
        chosen(path, "a", 1, "--data", "builtin")


def test_help_names_every_flag(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        main(["--help"])
    said = capsys.readouterr().out
    for flag in ("--order", "--global_batch_size", "--lamda_1", "--previous_output_dir", "--ddp_timeout"):
        assert flag in said
