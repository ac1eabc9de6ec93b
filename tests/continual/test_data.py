"""Reading tasks from a folder, and choosing examples."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from continual import ContinualError, assets, builtin, data, orders

from tests.continual.conftest import WORDS, write_benchmark


def test_a_task_of_a_folder(benchmark: Path):
    task = data.load("dbpedia", data.Wanted(benchmark))
    assert task.labels == ("animal", "plant", "place")
    assert (len(task.train), len(task.test), task.title) == (40, 12, "dbpedia")
    text, label = task.test[0]
    assert task.labels[label] == "animal"
    assert data.load("dbpedia", data.Wanted(benchmark), train=False).train == ()
    assert set(text.split()) <= {*WORDS["dbpedia"]["animal"].split(), "the", "0", "test"}


def test_a_choice_takes_labels_in_turn_and_is_always_the_same(benchmark: Path):
    one, two = (data.load("dbpedia", data.Wanted(benchmark, 9, 4)) for _ in range(2))
    assert one == two
    assert set(Counter(label for _, label in one.train).values()) == {3}
    assert len(one.test) == 4
    assert one.fingerprint != data.load("dbpedia", data.Wanted(benchmark, max_test=5)).fingerprint


def test_texts_of_a_folder_stay_as_they_are_and_the_first_ones_can_be_taken(tmp_path: Path):
    folder = write_benchmark(tmp_path / "b") / "TC" / "amazon"
    rows = [{"sentence": text, "label": "bad"} for text in ("Title: a\nText: b\n", " c", " c", "d")]
    (folder / "test.json").write_text(json.dumps(rows))
    task = data.load("amazon", data.Wanted(tmp_path / "b"))
    assert [text for text, _ in task.test] == ["Title: a\nText: b\n", " c", " c", "d"]
    first = data.load("amazon", data.Wanted(tmp_path / "b", 3, 2, "first"))
    assert (first.test, first.train) == (task.test[:2], task.train[:3])


def test_examples_without_an_agreed_label_are_left_out_and_counted(tmp_path: Path):
    folder = write_benchmark(tmp_path / "b") / "TC" / "amazon"
    rows = [{"sentence": "a", "label": "bad"}, {"sentence": "b", "label": "-"}]
    (folder / "test.json").write_text(json.dumps(rows))
    task = data.load("amazon", data.Wanted(tmp_path / "b"))
    assert (task.test, task.left_out) == ((("a", 1),), 1)
    (folder / "test.json").write_text(json.dumps(rows[1:]))
    with pytest.raises(ContinualError, match=r"test\.json: no example has a label"):
        data.load("amazon", data.Wanted(tmp_path / "b"))


def test_a_rare_label_does_not_hold_up_the_others(tmp_path: Path):
    folder = write_benchmark(tmp_path / "b") / "TC" / "amazon"
    rows = [{"sentence": "poor", "label": "bad"}, *({"sentence": f"fine {i}", "label": "good"} for i in range(9))]
    (folder / "train.json").write_text(json.dumps(rows))
    task = data.load("amazon", data.Wanted(tmp_path / "b", 8))
    assert Counter(label for _, label in task.train) == {0: 7, 1: 1}


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("train.json", "[", "train.json: not JSON"),
        ("train.json", "[]", "train.json: holds an empty list; wanted a list of examples"),
        ("test.json", "", "test.json: not JSON"),
        ("test.json", '{"Instances": []}', "test.json: holds an object; wanted a list of examples"),
        ("test.json", '{"sentence": "x"}\n{"sentence": "y"}', "wanted one list, not an object a line"),
        ("test.json", "[" * 100_000, "test.json: not JSON of examples: nested too deeply"),
        ("train.json", "version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS.*\n  .*git lfs pull"),
        ("test.json", '[{"sentence": "x"}]', "test.json: example 0: wanted an object"),
        ("test.json", '["x"]', "test.json: example 0: wanted an object"),
        ("train.json", '[{"sentence": "x", "label": "odd"}]', "label 'odd' is not in labels.json"),
        ("labels.json", "{}", "labels.json: holds an empty object; wanted a list of label names"),
        ("labels.json", '["good", 3]', "labels.json: a label is 3; wanted a text"),
        ("labels.json", '["good", " "]', "labels.json: a label is ' '; wanted a text"),
        ("labels.json", '["good", "good"]', "labels.json: a label stands there twice"),
    ],
)
def test_files_of_another_form(tmp_path: Path, file: str, text: str, said: str):
    folder = write_benchmark(tmp_path / "b")
    (folder / "TC" / "amazon" / file).write_text(text)
    with pytest.raises(ContinualError, match=said):
        data.load("amazon", data.Wanted(folder))


def test_missing_files(tmp_path: Path):
    folder = write_benchmark(tmp_path / "b")
    (folder / "TC" / "amazon" / "labels.json").unlink()
    with pytest.raises(ContinualError, match=r"amazon/labels\.json: No such file"):
        data.load("amazon", data.Wanted(folder))
    with pytest.raises(ContinualError, match=r"wanted one <group>/MNLI/train\.json, found none; its tasks are ag"):
        data.load("MNLI", data.Wanted(folder))
    with pytest.raises(ContinualError, match=r"found none; there is amazon$"):
        data.load("Amazon", data.Wanted(folder))
    with pytest.raises(ContinualError, match=r"found none; there is .*/TC/amazon, at another depth$"):
        data.load("amazon", data.Wanted(folder.parent))
    (folder / "TC" / "amazon" / "train.json").unlink()
    with pytest.raises(ContinualError, match=r"found none in .*/TC/amazon$"):
        data.load("amazon", data.Wanted(folder))
    with pytest.raises(ContinualError, match=r"found none; no task is in it$"):
        data.load("x", data.Wanted(folder / "TC" / "amazon"))


def test_a_file_with_a_byte_order_mark_is_read_and_one_of_another_encoding_is_not(tmp_path: Path):
    folder = write_benchmark(tmp_path / "b")
    path = folder / "TC" / "amazon" / "test.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert data.load("amazon", data.Wanted(folder)).test
    path.write_bytes(b'[{"sentence": "\xe9", "label": "bad"}]')
    with pytest.raises(ContinualError, match=r"test\.json: not UTF-8 text \(byte 15\)"):
        data.load("amazon", data.Wanted(folder))


@pytest.mark.assets
@pytest.mark.parametrize("name", list(orders.STAND_INS))
def test_built_in_tasks_hold_out_what_they_do_not_train_on(name: str):
    assets.prepare(builtin.PACKAGES)
    task = data.load(name, data.Wanted())
    assert (len(task.train), len(task.test)) == (400, 200)
    assert not {text for text, _ in task.train} & {text for text, _ in task.test}
    assert set(range(len(task.labels))) == {label for _, label in task.train} == {label for _, label in task.test}
    assert max(Counter(label for _, label in task.test).values()) <= 200 / len(task.labels) * 1.2
    assert task.title == f"{name} ({orders.STAND_INS[name]})"
