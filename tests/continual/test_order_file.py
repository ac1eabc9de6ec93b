"""A user's own order: what its file may say, and what is said of one that is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from continual import ContinualError, builtin, data, orders
from hypothesis import given
from hypothesis import strategies as st

from tests.continual.conftest import write_benchmark


def order(tmp_path: Path, text: str) -> orders.Order:
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return orders.find(str(path))


def test_tasks_of_three_kinds(tmp_path: Path):
    write_benchmark(tmp_path / "CL")
    found = order(
        tmp_path,
        """
name: mine
tasks:
  - yahoo
  - {name: news, builtin: reuters-r8}
  - name: mood
    folder: CL/TC/amazon
    instruction: "Good or bad?\\n"
""",
    )
    assert (found.name, found.tasks) == ("mine", ("yahoo", "news", "mood"))
    assert found.up_to("news", 2) == ("yahoo", "news")
    assert [found.names_data_of(task) for task in found.tasks] == [False, True, True]
    assert [found.title(task, True) for task in found.tasks] == ["yahoo (newsgroups-7)", "news (reuters-r8)", "mood"]
    wanted = data.Wanted(tmp_path / "CL", order=found)
    assert data.load("yahoo", wanted).labels == ("sport", "music")
    mood = data.load("mood", wanted)
    assert (mood.name, mood.labels) == ("mood", ("good", "bad"))
    assert mood.question(("x", 0)).prompt == "Task:TC\nDataset:mood\nGood or bad?\nOption: good, bad \nx\nAnswer:"
    assert data.packages(found, ["yahoo", "mood"], tmp_path) == ()
    assert data.packages(found, ["yahoo", "news"], tmp_path) == data.packages(found, ["yahoo"], None)
    assert data.packages(found, ["news"], tmp_path) == builtin.PACKAGES


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "mine.yaml: is empty; wanted a mapping with name and tasks"),
        ("- a\n", "mine.yaml:1: the file is a list; wanted a mapping with name and tasks"),
        ("name: x\n", "mine.yaml:1: tasks is missing"),
        ("name: x\ntasks: []\n", "mine.yaml:2: tasks is an empty list; wanted a list of tasks"),
        ("name: x\ntasks: a\n", "mine.yaml:2: tasks is 'a'; wanted a list of tasks"),
        ("name: a/b\ntasks: [a]\n", "mine.yaml:1: name is 'a/b'; wanted letters, digits"),
        ("name: order_1\ntasks: [a]\n", "mine.yaml:1: name is order_1, one of O-LoRA's orders; wanted another"),
        ("name: x\ntask: [a]\n", "mine.yaml:2: unknown key task; did you mean tasks?"),
        ("name: x\nname: y\ntasks: [a]\n", "mine.yaml:2: the key name is given twice"),
        ("name: x\ntasks:\n- a\n- ../b\n", "mine.yaml:4: a task is '../b'; wanted letters"),
        ("name: x\ntasks:\n- a\n- a\n", "mine.yaml:4: the task a is given twice"),
        ("name: x\ntasks:\n- {builtin: reuters-r8}\n", "mine.yaml:3: a task has no name"),
        ("name: x\ntasks:\n- {name: a, builtin: r8}\n", "mine.yaml:3: builtin is r8; wanted one of reuters-r8, "),
        ("name: x\ntasks:\n- name: a\n  builtin: reuters-r8\n  folder: b\n", "mine.yaml:5: a task has builtin and"),
        ("name: x\ntasks:\n- {name: a, folder: }\n", "mine.yaml:3: folder is nothing; wanted a text"),
        ("name: x\ntasks: [[a]]\n", "mine.yaml:2: a task is a list; wanted a name, or a mapping"),
        ("name: [\n", "mine.yaml:2: not YAML"),
        ("name: \x00\n", "mine.yaml: not YAML"),
        ("name: x\ntasks: [&a [*a]]\n", "mine.yaml:2: a task is a list"),
    ],
)
def test_a_file_that_is_no_order(tmp_path: Path, text: str, said: str):
    with pytest.raises(ContinualError) as refused:
        order(tmp_path, text)
    assert said in str(refused.value)


def test_a_file_that_is_not_there_or_no_text(tmp_path: Path):
    with pytest.raises(ContinualError, match=r"other\.yml: cannot be read: No such file"):
        orders.find(str(tmp_path / "other.yml"))
    (tmp_path / "mine.yaml").write_bytes(b"name: \xff")
    with pytest.raises(ContinualError, match=r"mine\.yaml: not UTF-8 text \(byte 6\)"):
        orders.find(str(tmp_path / "mine.yaml"))


def test_data_that_is_not_there_is_told_with_the_line_of_the_task(tmp_path: Path):
    mine = order(tmp_path, "name: x\ntasks:\n- agnews\n- {name: b, folder: b}\n- nothing\n")
    with pytest.raises(ContinualError, match=r"mine\.yaml:5: nothing names no data, and nothing stands in for it"):
        mine.on_builtin_data()
    with pytest.raises(ContinualError, match=r"mine\.yaml:4: folder of b is .*/b, which is not there; wanted a folder"):
        data.load("b", data.Wanted(order=mine))


NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,12}", fullmatch=True)


@given(st.lists(NAMES, min_size=1, max_size=6, unique=True), st.data())
def test_any_order_is_read_as_it_was_written(tmp_path_factory: pytest.TempPathFactory, names: list[str], draw):
    stand_ins = [draw.draw(st.sampled_from([None, *builtin.TASKS])) for _ in names]
    tasks = [{"name": n} | ({"builtin": b} if b else {}) for n, b in zip(names, stand_ins, strict=True)]
    path = tmp_path_factory.mktemp("orders") / "o.yaml"
    path.write_text(json.dumps({"name": "mine", "tasks": tasks}))
    found = orders.find(str(path))
    assert found.tasks == tuple(names)
    assert [found.source(name).builtin for name in names] == stand_ins


@given(st.text(max_size=60))
def test_no_text_breaks_the_reader(tmp_path_factory: pytest.TempPathFactory, text: str):
    path = tmp_path_factory.mktemp("orders") / "o.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        orders.find(str(path))
    except ContinualError as error:
        assert str(error).startswith(f"--order {path}")
