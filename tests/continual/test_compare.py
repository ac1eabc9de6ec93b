"""Runs laid side by side: ours and the originals', over seeds and orders, with stages missing."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from continual import compare, logged, orders
from hypothesis import given
from hypothesis import strategies as st
from inline_snapshot import snapshot

# Exact match in % that O-LoRA's program logged for order_1 on T5-large, of the authors' repository.
OLORA = {
    "dbpedia": [98.71, 98.55, 97.41, 97.74],
    "amazon": [57.76, 57.41, 56.07],
    "yahoo": [71.91, 71.04],
    "agnews": [88.62],
}
TASKS = tuple(OLORA)
MATRIX = [[OLORA[task][stage - place] for place, task in enumerate(TASKS[: stage + 1])] for stage in range(4)]
GROUPS = {"dbpedia": "TC", "amazon": "SC", "yahoo": "TC", "agnews": "TC"}


def original(base: Path, name: str = "order1_olora", leave_out: tuple[int, ...] = ()) -> Path:
    """A run's folder as the originals leave it: all_results.json with figures by task and by kind of task."""
    for stage, task in enumerate(TASKS, 1):
        if stage in leave_out:
            continue
        folder = base / name / "outputs" / f"{stage}-{task}"
        folder.mkdir(parents=True)
        values = {"epoch": 1.0, "predict_exact_match": 50.0, "predict_rouge1_for_dbpedia": 12.0}
        for other, figure in zip(TASKS, MATRIX[stage - 1], strict=False):
            values[f"predict_exact_match_for_{GROUPS[other]}"] = 1.0
            values[f"predict_exact_match_for_{other}"] = figure
        (folder / "all_results.json").write_text(json.dumps(values))
    return base / name


def own(base: Path, name: str, matrix: list[list[float]], **other: object) -> Path:
    """A run of ours: results.json of each stage holds the rows up to it."""
    body = {"order": "order_1", "method": "olora", "seed": 0, "tasks": TASKS, "stand_ins": {}}
    for stage in range(1, len(matrix) + 1):
        folder = base / name / "outputs" / f"{stage}-{TASKS[stage - 1]}"
        folder.mkdir(parents=True)
        (folder / "results.json").write_text(json.dumps(body | {"accuracy": matrix[:stage]} | other))
    return base / name


def test_the_authors_logs_of_order_1_give_their_figures(tmp_path: Path):
    run = logged.read(original(tmp_path))
    assert (run.order, run.method, run.seed, run.stages) == ("order_1", "olora", None, 4)
    assert run.matrix == tuple(map(tuple, MATRIX))
    assert run.figures["average"] == pytest.approx(78.37, abs=0.005)
    assert run.figures["backward_transfer"] == pytest.approx(-1.18, abs=0.005)
    assert run.figures["forward_transfer"] is None
    assert logged.read(tmp_path / "order1_olora" / "outputs").figures == run.figures


def test_a_missing_stage_does_not_break_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    middle, end = original(tmp_path, "order1_a", (2,)), original(tmp_path, "order1_b", (4,))
    assert compare.main([str(middle), f"mine={end}"]) == 0
    assert capsys.readouterr().out.replace(str(tmp_path), "X") == snapshot("""\
order    method    runs  average  backward  forgetting  forward
order_1  a       0 of 1    78.37         -        1.06        -
order_1  mine    0 of 1        -         -           -        -

mean ± standard deviation over runs; % for average, points for the rest; - is not known
note: X/order1_a: 3 of 4 stages; missing: 2 amazon
note: X/order1_b: 3 of 4 stages; missing: 4 agnews
""")


def test_mean_and_spread_over_seeds_and_orders(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """By hand: averages 60 and 64 are 62 ± 2.83; backward transfers -10 and -4 are -7 ± 4.24."""

    def matrix(last: float, first: float) -> list[list[float]]:
        return [[70.0], [70.0, 60.0], [70.0, 60.0, 50.0], [first, 60.0, 50.0, last]]

    runs = [
        own(tmp_path, "one", matrix(90.0, 40.0), seed=1),  # (40 + 60 + 50 + 90) / 4 = 60; -30 / 3
        own(tmp_path, "two", matrix(88.0, 58.0), seed=2),  # (58 + 60 + 50 + 88) / 4 = 64; -12 / 3
        own(tmp_path, "six", matrix(90.0, 40.0), seed=1, method="seqlora", order="order_2"),
        own(tmp_path, "ten", matrix(88.0, 58.0), seed=1, method="seqlora"),
        own(tmp_path, "sim", matrix(88.0, 58.0), seed=1, stand_ins={"dbpedia": "reuters-r8"}),
    ]
    assert compare.main([str(run) for run in runs]) == 0
    assert capsys.readouterr().out == snapshot("""\
order               method   runs       average      backward   forgetting  forward
order_1             olora       2  62.00 ± 2.83  -7.00 ± 4.24  7.00 ± 4.24        -
order_2             seqlora     1         60.00        -10.00        10.00        -
order_1             seqlora     1         64.00         -4.00         4.00        -
order_1 (built-in)  olora       1         64.00         -4.00         4.00        -

over the orders: mean of their means, and the spread between them
method   orders                 average      backward   forgetting  forward
seqlora  order_2, order_1  62.00 ± 2.83  -7.00 ± 4.24  7.00 ± 4.24        -

mean ± standard deviation over runs; % for average, points for the rest; - is not known
""")
    compare.main([str(run) for run in runs[:2]] + ["--format", "csv"])
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert rows[0]["average"] == "62.0"
    assert rows[0]["average_spread"] == "2.8284"
    assert rows[0]["forward_transfer"] == ""
    compare.main([str(run) for run in runs] + ["--format", "json"])
    body = json.loads(capsys.readouterr().out)
    assert body["groups"][0]["average"] == {"mean": 62.0, "spread": pytest.approx(8**0.5), "runs": 2}
    assert body["runs"][0]["accuracy"] == matrix(90.0, 40.0)
    assert [each["method"] for each in body["over_orders"]] == ["seqlora"]


def test_the_same_seed_twice_and_forward_transfer_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    more = {"untrained": [10.0, 20.0, 30.0, 40.0], "ahead": [None, 26.0, 33.0, 40.0]}
    runs = [own(tmp_path, "one", MATRIX, **more), own(tmp_path, "two", MATRIX, **more)]
    compare.main([str(run) for run in runs])
    said = capsys.readouterr().out
    assert "+3.00 ± 0.00" in said
    assert f"{runs[1]}: order_1, olora, seed 0 as {runs[0]}; both count" in said


def test_the_logged_order_of_a_long_run_is_found_by_its_tasks(tmp_path: Path):
    for stage, task in ((1, "yelp"), (3, "MNLI")):
        folder = tmp_path / "long_seqlora" / f"{stage}-{task}"
        folder.mkdir(parents=True)
        (folder / "all_results.json").write_text(json.dumps({"predict_exact_match_for_yelp": 60.0 + stage}))
    run = logged.read(tmp_path / "long_seqlora")
    assert (run.order, run.method, run.tasks, run.stages) == ("order_6", "seqlora", orders.ORDERS["order_6"], 2)
    assert run.matrix[2] == (63.0, None, None)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "no folder 1-TASK"),
        ({"1-a/other": "x"}, "no stage has results.json, all_results.json or predict_results.json that can be used"),
        ({"1-a/all_results.json": "{"}, "all_results.json: cannot be read"),
        ({"1-a/all_results.json": "[]"}, "all_results.json: holds list; wanted an object"),
        ({"1-a/results.json": "{}"}, "results.json of stage 1: tasks is None; wanted a list of names"),
        ({"1-a/results.json": '{"tasks": ["a"], "accuracy": "x"}'}, "no stage has results.json"),
        ({"1-a/results.json": '{"tasks": ["a"], "accuracy": [[NaN]]}'}, "no stage has results.json"),
        ({"1-a/x": "", "1-b/x": ""}, "two folders of stage 1: 1-a and 1-b"),
    ],
)
def test_folders_that_are_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str], files: dict[str, str], said: str):
    good = original(tmp_path / "good")
    bad = tmp_path / "bad" / "outputs"
    bad.mkdir(parents=True)
    for name, content in files.items():
        (bad / name).parent.mkdir(exist_ok=True)
        (bad / name).write_text(content)
    assert compare.main([str(bad.parent), str(good)]) == 1
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.err.startswith(f"continual: {tmp_path}")
    assert "78.37" in captured.out


def test_nothing_to_compare(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert compare.main([str(tmp_path / "nowhere")]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "nowhere: no such folder; wanted a run's directory" in captured.err


def test_names_of_files_do_not_move_the_cursor(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    compare.main([str(own(tmp_path, "one", MATRIX, method="\x1b[2Jx"))])
    assert "\x1b" not in capsys.readouterr().out


VALUES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3))
ANY = st.recursive(VALUES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner))


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(("tasks", "accuracy", "order", "seed", "untrained"), ANY)))
def test_no_file_breaks_the_reader(tmp_path_factory: pytest.TempPathFactory, body: dict[str, object]):
    folder = tmp_path_factory.mktemp("run") / "outputs" / "1-a"
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps(body))
    try:
        run = logged.read(folder.parents[1])
    except logged.ContinualError:
        return
    assert compare.text([run])
    assert compare.as_csv([run])
    assert json.loads(compare.as_json([run]))["runs"]


def test_a_folder_of_runs_is_its_runs_and_a_run_counts_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    one, two = own(tmp_path / "runs", "one", MATRIX, seed=1), own(tmp_path / "runs", "two", MATRIX, seed=2)
    (tmp_path / "runs" / "other" / "logs" / "1-dbpedia").mkdir(parents=True)
    (tmp_path / "runs" / "note.txt").write_text("mine")
    (tmp_path / "runs" / "failed" / "outputs" / "1-dbpedia").mkdir(parents=True)
    assert compare.main([str(tmp_path / "runs"), str(one), f"{two}/", "--format", "json"]) == 1
    said = capsys.readouterr()
    assert said.err.startswith(f"continual: {tmp_path / 'runs' / 'failed'}: no stage has results.json")
    body = json.loads(said.out)
    assert [run["path"] for run in body["runs"]] == [str(one), str(two)]
    assert compare.main([str(one), f"again={one}"]) == 0  # under another name it is wanted
    assert "again" in capsys.readouterr().out


def test_what_is_given_in_a_runs_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run = own(tmp_path, "one", MATRIX)
    (run / "outputs" / "4-agnews" / "adapter" / "1-dbpedia").mkdir(parents=True)
    (run / "logs" / "1-dbpedia").mkdir(parents=True)
    places = [run / "outputs" / "4-agnews", run / "outputs" / "4-agnews" / "results.json", run / "logs" / "1-dbpedia"]
    for place in places:
        assert compare.main([str(place)]) == 1
    stage, file, logs = capsys.readouterr().err.splitlines()
    assert stage.endswith(f"4-agnews: one stage of a run; give {run}; wanted a run's directory, or O-LoRA's outputs")
    assert "results.json: a file; wanted a run's directory" in file
    assert "no folder 1-TASK in" in logs


def test_predict_results_alone_will_do(tmp_path: Path):
    run = original(tmp_path)
    for stage in (1, 3):
        folder = run / "outputs" / f"{stage}-{TASKS[stage - 1]}"
        (folder / "all_results.json").rename(folder / "predict_results.json")
    assert logged.read(run).matrix == tuple(map(tuple, MATRIX))
