"""`launch` with a DeepSpeed config that would stop the job: it runs on a mended copy, and the original stays."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import run

JOB = """
name: small
script: run.py
engine: python
deepspeed: code/ds.json
sync: {code: code}
args: {per_device_train_batch_size: 4, bf16: true}
stages: [{name: one}]
"""
PROGRAM = """
import pathlib, sys
config = pathlib.Path(sys.argv[sys.argv.index("--deepspeed") + 1])
print("read", config.name, "".join(config.read_text().split()))
"""
WRONG = '{"train_micro_batch_size_per_gpu": 8, "bfloat16": {"enabled": "auto"}, "zero_optimization": {"stage": 2}}\n'
RIGHT = '{"train_micro_batch_size_per_gpu": "auto", "bf16": {"enabled": "auto"}, "zero_optimization": {"stage": 2}}\n'


@pytest.fixture
def job() -> str:
    Path("code").mkdir()
    Path("code/run.py").write_text(PROGRAM)
    Path("code/ds.json").write_text(WRONG)
    Path("job.yaml").write_text(JOB)
    return "job.yaml"


def test_the_run_has_its_own_copy(job: str) -> None:
    result = run("launch", job)
    assert result.exit_code == 0, result.output
    (directory,) = Path("runs").iterdir()
    (copy,) = directory.glob("*.mended.json")
    assert copy.name == f"{directory.name}.ds.mended.json"
    assert copy.read_text() == RIGHT
    assert Path("code/ds.json").read_text() == WRONG
    assert sorted(path.name for path in Path("code").iterdir()) == ["ds.json", "run.py"]
    assert f"read {copy.name} {RIGHT.replace(' ', '').strip()}" in result.stderr
    assert "code/ds.json stays as it is; this run uses a mended copy of it:" in result.stderr
    assert 'train_micro_batch_size_per_gpu set to "auto": --per_device_train_batch_size is given' in result.stderr
    kept = json.loads((directory / "plan.json").read_text())["mended_config"]
    assert (kept["original"], kept["path"], kept["text"]) == ("code/ds.json", str(copy.absolute()), RIGHT)


def test_the_plan_shows_it_and_writes_nothing(job: str) -> None:
    result = run("plan", job)
    assert result.exit_code == 0, result.output
    assert "# code/ds.json stays as it is; this run uses a mended copy of it:\n" in result.stdout
    assert '#     bfloat16 renamed to "bf16"' in result.stdout
    (line,) = (line for line in result.stdout.splitlines() if line.startswith("mkdir -p") and "printf %s" in line)
    assert ".ds.mended.json" in line
    (command,) = (line for line in result.stdout.splitlines() if "run.py" in line)
    assert "--deepspeed" in command
    assert ".ds.mended.json" in command
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("config", "words", "code"),
    [
        (RIGHT, (), 0),  # nothing to mend
        (WRONG, ("--no-check",), 0),  # nobody looked
        (WRONG, ("--ignore", "config-disagrees", "--ignore", "precision-disagrees"), 0),  # it is meant so
        (WRONG.replace('"zero', '"gradient_clipping": 0.5, "zero'), (), 1),  # and something that is not certain
    ],
)
def test_where_the_original_is_used(job: str, config: str, words: tuple[str, ...], code: int) -> None:
    Path("code/ds.json").write_text(config)
    result = run("plan", job, *words)
    assert result.exit_code == code, result.output
    assert ".mended" not in result.output
    assert "--deepspeed ds.json" in result.stdout


def test_a_resume_writes_the_copy_anew(job: str) -> None:
    Path("code/run.py").write_text(PROGRAM + "sys.exit(3)\n")
    assert run("launch", job).exit_code != 0
    Path("code/run.py").write_text(PROGRAM)
    (directory,) = Path("runs").iterdir()
    (copy,) = directory.glob("*.mended.json")
    copy.unlink()
    result = run("launch", job, "--yes")
    assert result.exit_code == 0, result.output
    assert [path.name for path in Path("runs").iterdir()] == [directory.name]
    assert copy.read_text() == RIGHT
