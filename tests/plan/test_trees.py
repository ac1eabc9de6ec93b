"""Data and model beside the code: read from the job, found here, placed on each host, written into the arguments."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from dsdoctor.jobs.job import parse_job
from dsdoctor.jobs.load import load_job
from dsdoctor.plan.build import plan
from dsdoctor.plan.copies import Paths
from dsdoctor.plan.model import LaunchPlan
from dsdoctor.plan.shell import as_shell
from dsdoctor.yamlfile import FileError
from tests.plan.clusters import two_hosts

JOB = """
name: demo
module: pkg.train
sync: {data: DATA, model: MODEL}
args: {data_dir: "${data_dir}/train", model_name_or_path: "${model_dir}"}
profiles: {tiny: {args: {data_dir: builtin, model_name_or_path: builtin}}}
stages: [{name: only}]
"""


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    (tmp_path / "lab").mkdir()
    (tmp_path / "sets/CL_Benchmark/train").mkdir(parents=True)
    (tmp_path / "t5.bin").write_bytes(b"weights")
    return tmp_path


def job_file(lab: Path, data: str, model: str, text: str = JOB) -> str:
    path = lab / "lab/demo.yaml"
    path.write_text(text.replace("DATA", data).replace("MODEL", model))
    return str(path)


def planned(path: str, lab: Path, **options: Any) -> LaunchPlan:
    return plan(load_job(path, **options), two_hosts(), "demo-1", Paths(f"{lab}/runs/1", f"{lab}/lab", "python3"))


def words_of(made: LaunchPlan, host: str) -> list[str]:
    return list(made.stages[0].command(host).argv)


def test_relative_paths_begin_at_the_job_file_and_the_work_folder_keeps_their_names(lab: Path) -> None:
    made = planned(job_file(lab, "../sets/CL_Benchmark", "{path: ../t5.bin}"), lab)
    data, model = made.sync.trees
    assert (data.source, data.file, data.same) == (f"{lab}/sets/CL_Benchmark", False, False)
    assert (model.source, model.file, model.same) == (f"{lab}/t5.bin", True, False)
    work = made.host("b").code_dir.removesuffix("/code")
    assert data.places["b"] == f"{work}/data/CL_Benchmark"
    assert f"{work}/data/CL_Benchmark/train" in words_of(made, "b")
    assert f"{work}/model/t5.bin" in words_of(made, "b")


def test_the_same_path_everywhere_when_the_job_says_so(lab: Path) -> None:
    made = planned(job_file(lab, "{path: ../sets/CL_Benchmark, at: same}", "../t5.bin"), lab)
    assert set(made.sync.trees[0].places.values()) == {f"{lab}/sets/CL_Benchmark"}
    text = JOB.replace("${data_dir}/train", f"{lab}/sets/CL_Benchmark/train")
    job = load_job(job_file(lab, "{path: ../sets/CL_Benchmark, at: same}", "../t5.bin", text))
    assert [tree.kind for tree in job.trees] == ["data", "model"], "its own path names it, too"
    assert f"{lab}/sets/CL_Benchmark/train" in job.present, "so that the checks do not miss it on the hosts"


def test_what_no_argument_names_is_neither_copied_nor_wanted_here(lab: Path) -> None:
    path = job_file(lab, "nowhere", "nowhere")
    assert load_job(path, profile="tiny").trees == ()
    with pytest.raises(FileError, match=r"sync\.data: .*/lab/nowhere is not here"):
        load_job(path)


@pytest.mark.parametrize("given", ["/", "''", "'a\\nb'", '"a\\0b"', "~nobody-of-that-name/x"])
def test_what_is_no_folder_to_copy_is_refused_with_its_key(lab: Path, given: str) -> None:
    with pytest.raises(FileError, match=r"sync\.data"):
        load_job(job_file(lab, given, "../t5.bin"))


def test_an_unknown_word_is_refused() -> None:
    with pytest.raises(FileError, match="at"):
        parse_job(JOB.replace("DATA", "{path: x, at: home}").replace("MODEL", "x"), "demo.yaml")
    with pytest.raises(FileError, match=r"sync\.exclude"):
        parse_job(JOB.replace("data: DATA, model: MODEL", 'exclude: ["- /data"]'), "demo.yaml")


def test_a_placeholder_without_its_key_says_which_key(lab: Path) -> None:
    path = job_file(lab, "../sets", "x", JOB.replace("sync: {data: DATA, model: MODEL}", "sync: {data: DATA}"))
    with pytest.raises(FileError, match=r"says nothing of sync\.model"):
        planned(path, lab)


def test_what_is_hardly_meant_is_said(lab: Path) -> None:
    (lab / "lab/data").mkdir()
    text = JOB.replace("${data_dir}/train", f"{lab}/lab/data").replace("only}", 'only, args: {also: "${data_dir}"}}')
    warnings = planned(job_file(lab, "data", "../t5.bin", text), lab).warnings
    assert any(f"names {lab}/lab/data itself" in warning for warning in warnings)
    assert any("exclude: [/data/]" in warning for warning in warnings)
    excluded = text.replace("model: MODEL", "model: MODEL, exclude: [/data/]")
    assert not any("exclude:" in each for each in planned(job_file(lab, "data", "../t5.bin", excluded), lab).warnings)


def test_the_printed_lines_are_bash_and_name_what_is_copied(lab: Path) -> None:
    text = as_shell(planned(job_file(lab, "../sets/CL_Benchmark", "../t5.bin"), lab))
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)
    assert "--copy-unsafe-links --partial-dir=.dsdoctor-partial" in text
    assert f"{lab}/sets/CL_Benchmark/ " in text
    assert f" -L --partial-dir=.dsdoctor-partial -- {lab}/t5.bin " in text
    assert "touch " in text
