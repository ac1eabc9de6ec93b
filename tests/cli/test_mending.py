"""`check --job … --fix`: the copy beside the original, what it says, and that nothing else is touched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import run

CONFIG = """{
  // for two cards
  "bfloat16": {"enabled": "auto"},
  "train_micro_batch_size_per_gpu": 8,
  "gradient_clipping": 0.5,
  "zero_optimization": {"stage": 2, "overlap_com": true},
  "scheduler": {"type": "WarmupLR", "params": {"warmup_num_steps": "auto"}},
}
"""
MENDED = """{
  "bf16": {"enabled": "auto"},
  "train_micro_batch_size_per_gpu": "auto",
  "gradient_clipping": 0.5,
  "zero_optimization": {"stage": 2, "overlap_comm": true}
}
"""
CALL = (
    "deepspeed --num_gpus 2 run.py --deepspeed ds.json --per_device_train_batch_size 4 --bf16 true "
    "--lr_scheduler_type constant --warmup_steps 0\n"
)


@pytest.fixture
def script() -> Path:
    Path("ds.json").write_text(CONFIG)
    Path("run.sh").write_text(CALL)
    return Path("run.sh")


def test_the_copy_is_written_beside_the_original(script: Path) -> None:
    result = run("check", "--job", script, "--fix", "--yes")
    assert result.exit_code == 1, "the job is as it was, and names the original"
    assert Path("ds.json").read_text() == CONFIG
    assert Path("ds.mended.json").read_text() == MENDED
    assert sorted(path.name for path in Path().iterdir()) == ["ds.json", "ds.mended.json", "run.sh"]
    said = result.stderr
    assert '-  "bfloat16": {"enabled": "auto"},\n' in said
    assert '+  "bf16": {"enabled": "auto"},\n' in said
    assert 'train_micro_batch_size_per_gpu set to "auto": --per_device_train_batch_size is given' in said
    assert "What is left is yours to decide:\n  gradient_clipping is 0.5" in said, "--max_grad_norm is not given"
    assert "written: ds.mended.json; ds.json is as it was. Name ds.mended.json where run.sh names the original" in said


def test_the_copy_has_none_of_what_was_mended(script: Path) -> None:
    before = found(script)
    run("check", "--job", script, "--fix", "--yes")
    script.write_text(CALL.replace("ds.json", "ds.mended.json"))
    assert found(script) == ["config-disagrees"], "what was left to the user"
    assert set(before) > {"config-disagrees", "config-is-not-json", "precision-disagrees", "unknown-config-key"}


def found(script: Path) -> list[str]:
    """The names of what is found of the config."""
    report = json.loads(run("check", "--job", script, "--format", "json").stdout)
    return [
        finding["name"]
        for finding in report["findings"]
        if any(str(evidence["source"]).startswith("ds.") for evidence in finding["evidence"])
    ]


def test_twice_changes_nothing_and_what_is_there_is_not_overwritten(script: Path) -> None:
    Path("ds.mended.json").write_text("mine")
    run("check", "--job", script, "--fix", "--yes")
    assert Path("ds.mended.json").read_text() == "mine"
    assert Path("ds.mended-2.json").read_text() == MENDED
    again = run("check", "--job", script, "--fix", "--yes")
    assert "ds.mended-2.json is there already, as it should be" in again.stderr
    assert not Path("ds.mended-3.json").exists()
    script.write_text(CALL.replace("ds.json", "ds.mended-2.json"))
    result = run("check", "--job", script, "--fix", "--yes")
    assert "can be mended" not in result.stderr


@pytest.mark.parametrize(("answer", "written"), [("y\n", True), ("n\n", False)])
def test_it_asks(script: Path, answer: str, written: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dsdoctor.terminal.is_terminal", lambda stream: True)
    result = run("check", "--job", script, "--fix", input=answer)
    assert "Write it there?" in result.stderr
    assert Path("ds.mended.json").exists() is written


def test_a_link_that_leads_nowhere_is_not_written_through(script: Path, tmp_path: Path) -> None:
    Path("ds.mended.json").symlink_to(tmp_path / "elsewhere.json")
    run("check", "--job", script, "--fix", "--yes")
    assert not (tmp_path / "elsewhere.json").exists()
    assert Path("ds.mended-2.json").read_text() == MENDED


def test_what_could_be_meant_in_two_ways_is_left(script: Path) -> None:
    """No argument says the precision or the clipping: the defaults may be what is wrong."""
    Path("ds.json").write_text(
        '{"train_micro_batch_size_per_gpu": "auto", "fp16": {"enabled": true}, "gradient_clipping": 0.5, '
        '"zero_optimization": {"stage": 2}}'
    )
    script.write_text("deepspeed --num_gpus 2 run.py --deepspeed ds.json --per_device_train_batch_size 4\n")
    result = run("check", "--job", script, "--fix", "--yes")
    assert "none of the findings has a fix that is safe" in result.stderr
    assert sorted(path.name for path in Path().iterdir()) == ["ds.json", "run.sh"]


def test_two_calls_that_want_different_things(script: Path) -> None:
    """The one config is right for the one call; what is changed must be right for both."""
    Path("ds.json").write_text(
        '{"train_micro_batch_size_per_gpu": 4, "gradient_clipping": "auto", "zero_optimization": {"stage": 2}}'
    )
    first = "deepspeed --num_gpus 2 run.py --deepspeed ds.json --per_device_train_batch_size 4\n"
    script.write_text(first + first.replace("size 4", "size 8"))
    run("check", "--job", script, "--fix", "--yes")
    assert json.loads(Path("ds.mended.json").read_text())["train_micro_batch_size_per_gpu"] == "auto"
    script.write_text(first + first.replace(" --per_device_train_batch_size 4", ""))
    Path("ds.mended.json").unlink()
    run("check", "--job", script, "--fix", "--yes")
    assert not Path("ds.mended.json").exists(), "the second call gives no batch size: 8 would be filled in"


def test_a_folder_that_cannot_be_written(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Path.open

    def refuse(self: Path, mode: str = "r", *words: Any, **more: Any) -> Any:
        if "x" in mode:
            raise PermissionError(13, "Permission denied")
        return opened(self, mode, *words, **more)

    monkeypatch.setattr(Path, "open", refuse)
    result = run("check", "--job", script, "--fix", "--yes")
    assert result.exit_code == 2
    assert "ds.mended.json: cannot be written: Permission denied" in result.stderr


ACCELERATE = """# two cards
distributed_type: DEEPSPEED
deepspeed_config:
  deepspeed_config_file: ds.json
  zero_stage: 2  # said there, too
  gradient_accumulation_steps: 4
  # the end of the block
mixed_precision: bf16
num_machines: 1
num_processes: 2
"""


def test_an_accelerate_config_is_mended_where_both_files_say_the_same() -> None:
    Path("ds.json").write_text('{"train_batch_size": 8, "bf16": {"enabled": true}, "zero_optimization": {"stage": 2}}')
    Path("acc.yaml").write_text(ACCELERATE)
    result = run("check", "--job", "acc.yaml", "--fix", "--yes")
    assert Path("acc.yaml").read_text() == ACCELERATE
    wanted = ACCELERATE.replace("  zero_stage: 2  # said there, too\n", "").replace("mixed_precision: bf16\n", "")
    assert Path("acc.mended.yaml").read_text() == wanted
    assert "gradient_accumulation_steps stands beside deepspeed_config_file" in result.stderr, "4 against nothing"
    assert "-mixed_precision: bf16" in result.stderr


def test_an_accelerate_config_that_contradicts_is_left_alone() -> None:
    Path("ds.json").write_text('{"train_batch_size": 8, "zero_optimization": {"stage": 3}}')
    Path("acc.yaml").write_text(ACCELERATE.replace("  gradient_accumulation_steps: 4\n", ""))
    run("check", "--job", "acc.yaml", "--fix", "--yes")
    assert sorted(path.name for path in Path().iterdir()) == ["acc.yaml", "ds.json"]
