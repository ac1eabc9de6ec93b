"""The files of figures that stages leave: forward transfer measured or not, the originals' names, a user's order."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean
from types import SimpleNamespace
from typing import Any

import pytest
from continual import data, logged, metrics, orders, train
from continual.train import main

from tests.continual.conftest import stage_flags

pytestmark = [pytest.mark.train, pytest.mark.timeout(600)]  # several stages a test
FILES = (
    "accuracy.csv accuracy.svg all_results.json curves.svg predict_results.json results.json stage.json summary.txt "
    "train_results.json trainer_state.json"
)


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


def run(encoder: Path, benchmark: Path, output: Path, ahead: tuple[bool, ...], **other: object) -> dict[str, Any]:
    """Carry out as many stages as `ahead` has entries, each measuring ahead or not; the last one's results."""
    for stage, measured in enumerate(ahead, 1):
        wanted = stage_flags(encoder, benchmark, output, stage, measure_ahead=measured, max_steps=4, **other)
        assert main(wanted) == 0
    value: dict[str, Any] = json.loads((output / f"{len(ahead)}" / "results.json").read_text())
    return value


def test_forward_transfer_and_that_measuring_it_changes_nothing_else(encoder: Path, benchmark: Path, tmp_path: Path):
    results = run(encoder, benchmark, tmp_path / "a", (True, True))
    untrained, ahead = results["untrained"], results["ahead"]
    assert (len(untrained), len(ahead)) == (4, 3)
    assert ahead[0] == untrained[0]
    assert results["forward_transfer"] == pytest.approx(ahead[1] - untrained[1])
    assert "forward transfer" in (tmp_path / "a" / "2" / "summary.txt").read_text()
    without = run(encoder, benchmark, tmp_path / "b", (False, False))
    assert without["accuracy"] == results["accuracy"]
    assert (without["forward_transfer"], without["untrained"]) == (None, [])
    assert "forward transfer" not in (tmp_path / "b" / "2" / "summary.txt").read_text()


def test_a_stage_that_did_not_measure_ahead_leaves_a_gap_in_its_place(encoder: Path, benchmark: Path, tmp_path: Path):
    results = run(encoder, benchmark, tmp_path, (True, False, True))
    assert [value is None for value in results["ahead"]] == [False, False, True, False]
    assert results["forward_transfer"] is None


def test_the_files_of_a_stage(encoder: Path, benchmark: Path, tmp_path: Path):
    results = run(encoder, benchmark, tmp_path, (False, False))
    folder = tmp_path / "2"
    assert sorted(path.name for path in folder.iterdir() if path.is_file()) == FILES.split()
    state = json.loads((folder / "trainer_state.json").read_text())
    assert [line["step"] for line in state["log_history"]] == [1, 2, 3, 4, 4]
    assert state["log_history"][-1]["train_loss"] == pytest.approx(
        fmean(line["loss"] for line in state["log_history"][:-1]), abs=1e-3
    )
    assert state["global_step"] == 4
    assert results["held_out"] == {"dbpedia": 12, "amazon": 12}
    rows = (folder / "accuracy.csv").read_text().splitlines()
    assert rows[0] == "stage,task,dbpedia,amazon,yahoo,agnews"
    assert [float(cell) for cell in rows[2].split(",")[2:4]] == results["accuracy"][1]
    assert "dbpedia: 12 held-out examples; O-LoRA's logs have 7600" in (folder / "summary.txt").read_text()


def test_predictions_are_one_line_an_example_and_give_the_accuracy(encoder: Path, benchmark: Path, tmp_path: Path):
    results = run(encoder, benchmark, tmp_path, (False, False), save_predictions=True)
    text = (tmp_path / "2" / "predict_eval_predictions.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert len(lines) == 24
    assert lines[0]["Task"] == "TC"
    assert lines[0]["Instance"]["instruction"].endswith("Option: animal, plant, place \n{0}\nAnswer:")
    assert set(lines[0]["Instance"]) == {"id", "sentence", "label", "ground_truth", "instruction"}
    for task, accuracy in zip(("dbpedia", "amazon"), results["accuracy"][1], strict=True):
        own = [line for line in lines if line["Dataset"] == task]
        assert [line["Instance"]["id"] for line in own] == [str(number) for number in range(12)]
        assert accuracy == round(100 * fmean(line["Prediction"] == line["Instance"]["label"] for line in own), 2)


def test_compare_reads_what_stages_leave_either_way(encoder: Path, benchmark: Path, tmp_path: Path):
    results = run(encoder, benchmark, tmp_path, (False, False))
    outputs = tmp_path / "run" / "outputs"
    outputs.mkdir(parents=True)
    for stage, task in ((1, "dbpedia"), (2, "amazon")):
        (tmp_path / f"{stage}").rename(outputs / f"{stage}-{task}")
    ours = logged.read(tmp_path / "run")
    assert (ours.order, ours.method, ours.seed, ours.stages, len(ours.matrix)) == ("order_1", "olora", 0, 2, 4)
    for folder in outputs.iterdir():
        (folder / "results.json").unlink()
    theirs = logged.read(tmp_path / "run")
    assert theirs.matrix[:2] == ours.matrix[:2] == tuple(map(tuple, results["accuracy"]))


def test_an_order_of_ones_own(encoder: Path, benchmark: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    order = tmp_path / "mine.yaml"
    order.write_text(f"name: mine\ntasks: [yahoo, {{name: mood, folder: {benchmark}/TC/amazon}}]\n")
    for stage, task in ((1, "yahoo"), (2, "mood")):
        assert main(stage_flags(encoder, benchmark, tmp_path, stage, order=order, task=task, max_steps=3)) == 0
    results = json.loads((tmp_path / "2" / "results.json").read_text())
    assert (results["order"], results["tasks"]) == ("mine", ["yahoo", "mood"])
    assert "continual: mine stage 2 of 2: mood, 40 examples" in capsys.readouterr().out


def test_a_built_in_task_that_the_order_names_stands_in_for_nothing(tmp_path: Path):
    (tmp_path / "mine.yaml").write_text("name: mine\ntasks: [{name: a, builtin: reuters-r8}, yahoo]\n")
    tasks = [data.Task(name, ("x",), (), (), stand_in="reuters-r8", about="news") for name in ("a", "yahoo")]
    args = SimpleNamespace(stage_index=1, method="olora", seed=0)
    order = orders.find(str(tmp_path / "mine.yaml"))
    for last, said in ((1, False), (2, True)):
        loaded = SimpleNamespace(order=order, tasks=tasks[:last], base="b")
        assert ("itself is not trained" in train._opening(args, loaded, "fp32")) == said
        state = SimpleNamespace(
            order="mine", method="olora", seed=0, matrix=[[50.0]], untrained=[], ahead=[], seconds=[]
        )
        summary = metrics._summary(metrics.Figures(order, tasks[:last], state, "b"))
        assert ("in the place of the named one" in summary) == said
        assert ("In brackets the built-in task that the order names." in summary) != said
