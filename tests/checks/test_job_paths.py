"""Which of a job's arguments are paths, where they are on a host, and which the sync brings there."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsdoctor.checks.casefile import CaseJob
from dsdoctor.cluster import HostEntry
from dsdoctor.hosts.examine import _about_job
from dsdoctor.jobs.load import load_job
from dsdoctor.jobs.load_any import load_any
from dsdoctor.jobs.paths import code_files, is_copied, named_paths, work_folder
from tests.checks.building import resolved


def roles(**args: object) -> list[tuple[str, str, bool]]:
    return [(one.path, one.role, one.certain) for one in named_paths(resolved(CaseJob(args=dict(args))))]


@pytest.mark.parametrize(
    ("args", "wanted"),
    [
        ({"model_name_or_path": "/models/t5"}, [("/models/t5", "model", True)]),
        ({"model-name-or-path": "t5-large"}, [("t5-large", "model", False)]),
        ({"model_name_or_path": "google/t5-large"}, [("google/t5-large", "model", False)]),
        ({"model_name_or_path": "initial_model/t5/large"}, [("initial_model/t5/large", "model", True)]),
        ({"model_path": "./t5"}, [("./t5", "model", True)]),
        ({"model_path": "~/t5"}, [("~/t5", "model", True)]),
        ({"data_dir": "CL_Benchmark"}, [("CL_Benchmark", "data", True)]),
        ({"dataset": "glue"}, [("glue", "data", False)]),
        ({"train_file": ["a.json", "b c.json", "a.json"]}, [("a.json", "data", True), ("b c.json", "data", True)]),
        ({"output_dir": "out", "log_file": "logs/x.log"}, [("out", "output", True), ("logs/x.log", "log", True)]),
        ({"output_dir": "${output_dir}", "data_dir": "s3://bucket/x", "model": "builtin", "data": None}, []),
        ({"learning_rate": "/not/a/path", "data_dir": 3, "train_file": True}, []),
    ],
)
def test_arguments_that_name_paths(args: dict[str, object], wanted: list[tuple[str, str, bool]]) -> None:
    assert roles(**args) == wanted


def test_what_an_earlier_stage_writes_is_not_looked_for() -> None:
    stages = {
        "one": {"model_name_or_path": "initial/model/t5", "output_dir": "outputs/1-one"},
        "two": {"model_name_or_path": "outputs/1-one/adapter", "output_dir": "outputs/2-two"},
        "three": {"model_name_or_path": "outputs/1-one-more/adapter", "output_dir": "outputs/2-two"},
    }
    found = named_paths(resolved(CaseJob(stages=stages)))
    assert [one.path for one in found] == [
        "initial/model/t5",
        "outputs/1-one",
        "outputs/2-two",
        "outputs/1-one-more/adapter",
    ]
    assert found[1].argument == "output_dir" and found[1].stage == "one"


def test_places_on_a_host() -> None:
    absolute, relative, home = named_paths(
        resolved(CaseJob(args={"data_dir": "/d/../e", "model_path": "../m/./t5", "train_file": "~/x"}))
    )
    assert (absolute.at("/w/code"), relative.at("/w/code"), home.at("/w/code")) == ("/d/../e", "/w/m/t5", "~/x")


@pytest.mark.parametrize(
    ("path", "exclude", "copied"),
    [
        ("data/train.json", (), True),
        ("../data", (), False),
        ("data/train.json", ("/data/",), False),
        ("data/train.json", ("train.json",), False),
        ("data/train.json", ("*.json",), False),
        ("data/train.json", ("/train.json",), True),
        ("a/data/x", ("/data",), True),
        ("a/data/x", ("data/",), False),
        ("a/data/x", ("a/data",), False),
        ("b/a/data/x", ("a/data",), True),
    ],
)
def test_what_the_sync_brings(path: str, exclude: tuple[str, ...], copied: bool) -> None:
    assert is_copied(path, exclude) is copied


@given(st.text(min_size=1), st.lists(st.text(min_size=1), max_size=3))
def test_any_text_may_be_a_path(path: str, exclude: list[str]) -> None:
    is_copied(path, exclude)
    for one in named_paths(resolved(CaseJob(args={"data_dir": path, "model": [path, 3, None], "output_dir": path}))):
        assert one.at("/code")


def test_a_job_knows_what_lies_with_its_code(tmp_path: Path) -> None:
    (tmp_path / "code" / "data").mkdir(parents=True)
    (tmp_path / "code" / "cache").mkdir()
    (tmp_path / "job.yaml").write_text(
        "name: j\nscript: train.py\nsync: {code: code, exclude: [/cache/]}\nstages: [{name: s}]\n"
        f"args: {{data_dir: data, train_file: cache, test_file: none/x, model: {'m' * 300}, output_dir: /o}}\n"
        "env: {HF_HOME: /hub, WANDB_DIR: /w}\n"
    )
    job = load_job(str(tmp_path / "job.yaml"))
    assert job.present == {"data"}
    here = _about_job(HostEntry("localhost", 1, local=True), job)
    there = _about_job(HostEntry("gpu-a", 1, workdir="/work"), job)
    assert here["inputs"][0] == {"path": "data", "role": "data", "at": str(tmp_path / "code/data")}
    assert there["inputs"][0]["at"] == "/work/code/data"
    assert there["places"] == [("output", "/o"), ("work", "/work")]
    assert there["variables"] == {"HF_HOME": "/hub"}
    assert work_folder(job, None) == "~/.dsdoctor/work/j"


def test_what_a_script_must_find_on_every_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "t.py").write_text("import argparse\nargparse.ArgumentParser().parse_known_args()\n")
    (tmp_path / "ds.json").write_text('{"train_batch_size": 2}')
    (tmp_path / "order.sh").write_text(
        "deepspeed --hostfile hosts src/t.py --deepspeed ds.json\npython after.py\ntorchrun /opt/x/eval.py\n"
    )
    monkeypatch.chdir(tmp_path)
    job = load_any("order.sh")
    wanted = {"src/t.py": f"{tmp_path}/src/t.py", "ds.json": f"{tmp_path}/ds.json", "/opt/x/eval.py": "/opt/x/eval.py"}
    assert code_files(job) == wanted
    for entry in (HostEntry("localhost", 1, local=True), HostEntry("gpu-a", 1, workdir="/work")):
        asked = [one for one in _about_job(entry, job)["inputs"] if one["role"] == "code"]
        assert {one["path"]: one["at"] for one in asked} == wanted, "the same place on every host"
    (tmp_path / "job.yaml").write_text("name: j\nscript: src/t.py\nstages: [{name: s}]\n")
    assert code_files(load_job("job.yaml")) == {}, "its code is copied by every launch"
