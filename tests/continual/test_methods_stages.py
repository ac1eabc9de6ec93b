"""Each method through two whole stages, in this process: what it leaves. test_several_ranks.py has it with ranks."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest
from continual import methods
from continual.methods import memory
from continual.train import main
from safetensors.torch import load_file

from tests.continual.conftest import stage_flags

pytestmark = [pytest.mark.train, pytest.mark.timeout(600)]  # the first test waits for the imports too
WEIGHTS = "adapter_model.safetensors"


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


def lines(out: str) -> list[dict[str, float]]:
    return [ast.literal_eval(line) for line in out.splitlines() if line.startswith("{")]


@pytest.mark.parametrize("method", [name for name in methods.NAMES if name not in ("olora", "seqlora")])
def test_two_stages(encoder: Path, benchmark: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], method: str):
    for stage in (1, 2):
        wanted = stage_flags(encoder, benchmark, tmp_path, stage, method=method, max_steps=8)
        assert main(wanted) == 0, capsys.readouterr().err
    first, second = tmp_path / "1" / "adapter", tmp_path / "2" / "adapter"
    if method != "replay":
        assert (first / "1-dbpedia" / WEIGHTS).read_bytes() == (second / "1-dbpedia" / WEIGHTS).read_bytes()
    kept = memory.read(second)
    assert list(kept.examples) == (["dbpedia", "amazon"] if method == "replay" else [])
    assert bool(kept.tensors) == (method == "gorp")
    hashed = json.loads((tmp_path / "2" / "stage.json").read_text())["files"]
    assert (f"{memory.FOLDER}/{memory.TENSORS}" in hashed) == (method in ("gorp", "replay"))


def test_a_memory_that_was_changed_stops_the_next_stage(
    encoder: Path, benchmark: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(stage_flags(encoder, benchmark, tmp_path, 1, method="replay", max_steps=2)) == 0
    path = tmp_path / "1" / "adapter" / memory.FOLDER / memory.EXAMPLES
    path.write_text(path.read_text().replace("train", "other"))
    assert main(stage_flags(encoder, benchmark, tmp_path, 2, method="replay", max_steps=2)) == 1
    assert f"incomplete: {path} is not the file that was saved" in capsys.readouterr().err


def test_gorps_full_rank_weights_are_there_when_it_is_measured_again(
    encoder: Path, benchmark: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """Stage 2 with a learning rate of next to nothing: the first task must be answered as it was at its end."""
    fast = {"method": "gorp", "max_steps": 8, "galore_lr": 0.05}
    assert main(stage_flags(encoder, benchmark, tmp_path, 1, **fast)) == 0
    still = fast | {"learning_rate": 1e-9, "galore_lr": 1e-12, "max_steps": 1}
    assert main(stage_flags(encoder, benchmark, tmp_path, 2, **still)) == 0
    capsys.readouterr()
    matrix = json.loads((tmp_path / "2" / "results.json").read_text())["accuracy"]
    assert matrix[0][0] == matrix[1][0]
    one, two = (load_file(tmp_path / stage / "adapter" / memory.FOLDER / memory.TENSORS) for stage in "12")
    for name in one:
        if name.startswith("weight."):
            assert (one[name] - two[name]).abs().max() < 1e-9


def test_flags_that_are_no_share_or_expression(capsys: pytest.CaptureFixture[str]):
    for flag, value, said in (
        ("--replay_share", "1", "wanted a number above 0 and below 1"),
        ("--gorp_energy", "0", "wanted a number above 0"),
        ("--optim_target_modules", "(", "no regular expression"),
    ):
        with pytest.raises(SystemExit):
            main([flag, value])
        assert said in capsys.readouterr().err
