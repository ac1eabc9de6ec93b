"""Checkpoints within a stage: interrupted anywhere, it goes on to the very result it would have had."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from continual import AgreedError, checkpoints, trainer
from continual.checkpoints import Checkpoints, fingerprint
from continual.ranks import Place, Ranks
from continual.train import main

from tests.continual.conftest import stage_flags

pytestmark = pytest.mark.train
ALONE = Ranks(Place("a"), torch.device("cpu"), "fp32")
STATE = {"sums": {"total": 1.5}, "parameters": {"w": {"value": torch.arange(3.0)}}}


class Killed(BaseException):
    """What no handler in the package catches."""


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_written_and_read(tmp_path: Path):
    ours = Checkpoints(tmp_path / "checkpoints", "f00", every=5)
    assert [step for step in range(12) if ours.is_due(step, 10)] == [0, 5]
    ours.save(5, STATE, ALONE)
    found = ours.newest(ALONE)
    assert found is not None
    assert found[0] == 5
    assert torch.equal(found[1]["parameters"]["w"]["value"], torch.arange(3.0))


def test_only_older_ones_of_this_training_are_removed(tmp_path: Path):
    theirs, ours = (Checkpoints(tmp_path, fits, every=1) for fits in ("aaa", "bbb"))
    theirs.save(9, STATE, ALONE)
    (tmp_path / "notes").mkdir()
    for step in (1, 2, 3, 10):
        ours.save(step, STATE, ALONE)
    assert names(tmp_path) == ["notes", "step-00000003-bbb", "step-00000009-aaa", "step-00000010-bbb"]
    ours.remove()
    assert names(tmp_path) == ["notes", "step-00000009-aaa"]
    (tmp_path / "notes").rmdir()
    theirs.remove()
    assert not tmp_path.exists()


@pytest.mark.parametrize("at", ["save", "fsync", "rename"])
def test_a_killed_write_never_looks_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str):
    ours = Checkpoints(tmp_path, "f00", every=1)
    ours.save(1, STATE, ALONE)

    def killed(*_: Any, **__: Any) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        place = {"save": torch, "fsync": checkpoints.os, "rename": Path}[at]
        patched.setattr(place, at, killed)
        patched.setattr(checkpoints.shutil, "rmtree", lambda *_, **__: None)  # nobody tidies up after SIGKILL
        with pytest.raises(Killed):
            ours._write(2, STATE)
    assert len(names(tmp_path)) == 2
    found = ours.newest(ALONE)
    assert found is not None
    assert found[0] == 1
    assert names(tmp_path) == ["step-00000001-f00"]


@pytest.mark.parametrize("damage", ["cut", "flipped", "no label", "another's label"])
def test_a_damaged_one_is_passed_over(tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]):
    ours = Checkpoints(tmp_path, "f00", every=1)
    ours.save(1, STATE, ALONE)
    ours.save(2, STATE, ALONE)
    state, label = (tmp_path / "step-00000002-f00" / name for name in (checkpoints.STATE, checkpoints.LABEL))
    content = state.read_bytes()
    if damage == "cut":
        state.write_bytes(content[:-10])
    elif damage == "flipped":
        state.write_bytes(content[:100] + bytes([content[100] ^ 1]) + content[101:])
    elif damage == "no label":
        label.unlink()
    else:
        label.write_text(json.dumps(json.loads(label.read_text()) | {"fingerprint": "bad"}))
    found = ours.newest(ALONE)
    assert found is not None
    assert found[0] == 1
    assert "step-00000002-f00 is not whole and is passed over" in capsys.readouterr().out


def test_a_disk_that_takes_nothing_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(AgreedError, match=r"--save_steps 3: .*checkpoints: cannot be written: Not a directory"):
        Checkpoints(tmp_path / "file" / "checkpoints", "f00", every=3).save(3, STATE, ALONE)


def test_the_fingerprint_is_of_all_settings():
    assert fingerprint({"a": 1, "b": [2]}) == fingerprint({"b": [2], "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})


def weights(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.glob("adapter/**/*.safetensors"))
    }


def lines(out: str) -> list[str]:
    return [line for line in out.splitlines() if line.startswith("{")]


@pytest.mark.parametrize("method", ["olora", "gorp", "replay"])
def test_interrupted_it_ends_as_uninterrupted(
    encoder: Path,
    benchmark: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    method: str,
):
    """Stage 2, where every method has something of its own; killed in step 8, after the checkpoints of 3 and 6."""
    shape = {"method": method, "max_steps": 10, "learning_rate": 0.01, "logging_steps": 4}
    assert main(stage_flags(encoder, benchmark, tmp_path, 1, **shape)) == 0
    whole = tmp_path / "whole"
    assert main(stage_flags(encoder, benchmark, tmp_path, 2, output_dir=whole, **shape)) == 0
    expected = lines(capsys.readouterr().out)[-3:]
    assert not (whole / "checkpoints").exists()

    again = stage_flags(encoder, benchmark, tmp_path, 2, output_dir=tmp_path / "again", save_steps=3, **shape)
    step = trainer.Training._step

    def killed(self: trainer.Training, number: int, *rest: Any) -> Any:
        if number == 8:
            raise Killed
        return step(self, number, *rest)

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(trainer.Training, "_step", killed)
        main(again)
    assert len(names(tmp_path / "again" / "checkpoints")) == 2
    capsys.readouterr()
    assert main(again) == 0
    out = capsys.readouterr().out
    assert "continual: resumed after step 6, from " in out
    assert lines(out) == expected[1:]  # the line of step 4 was printed before
    assert weights(tmp_path / "again") == weights(whole)
    assert weights(whole)
    results = [json.loads((folder / "results.json").read_text())["accuracy"] for folder in (whole, tmp_path / "again")]
    assert results[0] == results[1]
    assert not (tmp_path / "again" / "checkpoints").exists()


def test_other_settings_begin_anew(
    encoder: Path, benchmark: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    step = trainer.Training._step

    def killed(self: trainer.Training, number: int, *rest: Any) -> Any:
        if number == 4:
            raise Killed
        return step(self, number, *rest)

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(trainer.Training, "_step", killed)
        main(stage_flags(encoder, benchmark, tmp_path, save_steps=2))
    assert main(stage_flags(encoder, benchmark, tmp_path, save_steps=2, learning_rate=0.01)) == 0
    assert "resumed" not in capsys.readouterr().out
    assert main(stage_flags(encoder, benchmark, tmp_path, save_steps=2, per_device_train_batch_size=3)) == 0
    assert "resumed after step 2" in capsys.readouterr().out, "where it runs and how much at once may change"
