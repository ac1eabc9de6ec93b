"""The commands that take a script: check judges it, jobs --from makes a job file of it, launch says what it wants."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from dsdoctor.jobs.job import parse_job
from dsdoctor.jobs.load_any import load_any
from dsdoctor.jobs.paths import named_paths
from dsdoctor.jobs.script.as_job import as_job_file
from dsdoctor.jobs.unknown import Unknown
from dsdoctor.yamlfile import FileError
from tests.cli.conftest import run
from tests.jobs.reading import SCRIPTS

ORDER_1 = SCRIPTS / "olora/scripts/order_1.sh"


def test_a_script_becomes_the_job_file_that_starts_the_same() -> None:
    job = load_any(str(ORDER_1))
    made = parse_job(as_job_file(job), "job.yaml")
    assert (made.engine, made.script, made.deepspeed) == (
        "deepspeed", "src/run_uie_lora.py", "configs/ds_configs/stage2.config",
    )  # fmt: skip
    for written, stage in zip(made.stages, job.stages, strict=True):
        assert {**made.args, **written.args} == {name: one for name, one in stage.args.items() if name != "deepspeed"}
        assert {**made.env, **written.env} == stage.env


@pytest.mark.parametrize("path", sorted(SCRIPTS.rglob("*.s*")), ids=lambda path: path.stem)
def test_every_job_file_that_is_printed_can_be_read(path: Path) -> None:
    if path.is_dir():
        pytest.skip("a folder")
    job = load_any(str(path))
    try:
        text = as_job_file(job)
    except FileError as error:
        assert "job file" in str(error)
        return
    parse_job(text, "job.yaml")
    unknown = {name for stage in job.stages for name, value in stage.args.items() if isinstance(value, Unknown)}
    assert all(f"# {name}: " in text for name in unknown)


def test_check_judges_a_script(tmp_path: Path) -> None:
    result = run("check", "--job", ORDER_1, "--facts", "tests/snapshots/composed/a100pair", "--format", "json")
    report = json.loads(result.stdout)
    assert result.exit_code == 1
    found = {finding["name"]: finding for finding in report["findings"]}
    assert {"precision-disagrees", "scheduler-overridden", "optimizer-never-stepped", "stages-unguarded"} <= set(found)
    assert found["optimizer-never-stepped"]["severity"] == "error"
    lines = {one["text"]: one["line"] for one in found["scheduler-overridden"]["evidence"]}
    assert lines["warmup_steps: 0"] == 34
    assert report["crashed"] == []


def test_jobs_prints_a_job_file() -> None:
    result = run("jobs", "--from", ORDER_1)
    assert result.exit_code == 0
    assert parse_job(result.stdout, "job.yaml").name == "order_1"


@pytest.mark.parametrize("command", ["launch", "plan"])
def test_launch_says_that_it_wants_a_job_file(command: str) -> None:
    result = run(command, ORDER_1)
    assert result.exit_code == 2
    assert "not a job file (.yaml)" in result.stderr
    assert f"dsdoctor jobs --from {ORDER_1}" in result.stderr


def test_a_script_beside_one_needs_no_folder_before_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(ORDER_1).parent)
    assert "not a job file (.yaml)" in run("plan", "order_1.sh").stderr


def test_a_script_that_is_not_closed_is_said_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "run.sh"
    path.write_text('torchrun train.py \\\n  --name "abc\n', encoding="utf-8")
    result = run("check", "--job", path)
    assert result.exit_code == 2
    assert "run.sh:2: column 10: the double quote that opens here is never closed" in result.stderr


def test_the_folder_that_a_script_writes_its_log_to_is_looked_for(tmp_path: Path) -> None:
    path = tmp_path / "run.sh"
    text = "mkdir -p made/logs\npython a.py > made/logs/a.log\npython b.py | tee nowhere/b.log\npython c.py > c.log\n"
    path.write_text(text, encoding="utf-8")
    logs = [(named.path, named.stage) for named in named_paths(load_any(str(path))) if named.role == "log"]
    assert logs == [("nowhere/b.log", "b-line-3")]


def test_nothing_of_a_script_is_run_and_no_torch_is_loaded(tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    path = tmp_path / "run.sh"
    path.write_text(
        f"touch {touched}\nx=$(touch {touched})\ntorchrun train.py --x $x `touch {touched}`\n", encoding="utf-8"
    )
    code = (
        "import sys\nfrom dsdoctor.checks import run_checks\nfrom dsdoctor.jobs.load_any import load_any\n"
        f"run_checks(None, load_any({str(path)!r}))\n"
        "print([name for name in ('torch', 'deepspeed', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert not touched.exists()


def test_a_script_is_judged_with_little_work() -> None:
    """Half a second on an idle core; twice that is let pass here, since cores are seldom idle where tests run."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "dsdoctor", "check", "--job", str(ORDER_1), "--format", "json"]
    subprocess.run(command, capture_output=True, check=False, timeout=60)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime < 1.2
