"""The folder of a stage: whole or not at all, and refused where it does not fit."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import pytest
from continual import ContinualError, stages

STATE = stages.State(
    token="one",
    order="order_1",
    method="olora",
    seed=0,
    tasks=["dbpedia"],
    base={"sha256": "abc", "layers": 4},
    lora={"r": 8, "alpha": 32, "targets": []},
    data={"dbpedia": "f00"},
    matrix=[[91.5]],
)


def saving(text: str):
    def save(folder: Path) -> None:
        (folder / "1-dbpedia").mkdir(parents=True)
        (folder / "1-dbpedia" / "weights").write_text(text)

    return save


def test_written_and_read(tmp_path: Path):
    stages.write(tmp_path / "1", STATE, saving("first"), {"summary.txt": "table\n"})
    state = stages.read(tmp_path / "1")
    assert replace(state, files={}) == STATE
    assert list(state.files) == ["1-dbpedia/weights"]
    assert sorted(path.name for path in (tmp_path / "1").iterdir()) == ["adapter", "stage.json", "summary.txt"]
    assert stages.holds(tmp_path / "1", "one")
    assert not stages.holds(tmp_path / "1", "another")


def test_a_second_carrying_out_replaces_the_first(tmp_path: Path):
    stages.write(tmp_path, STATE, saving("first"), {"summary.txt": "old"})
    stages.write(tmp_path, replace(STATE, token="two"), saving("second"), {"summary.txt": "new"})
    assert stages.read(tmp_path).token == "two"
    assert (tmp_path / "adapter" / "1-dbpedia" / "weights").read_text() == "second"
    assert (tmp_path / "summary.txt").read_text() == "new"


class Killed(BaseException):
    """What no handler in the package catches."""


def test_interrupted_while_saving_adapters_the_old_state_stands(tmp_path: Path):
    stages.write(tmp_path, STATE, saving("first"), {"summary.txt": "old"})

    def killed(folder: Path) -> None:
        saving("half")(folder)
        raise Killed

    with pytest.raises(Killed):
        stages.write(tmp_path, replace(STATE, token="two"), killed, {"summary.txt": "new"})
    assert stages.read(tmp_path).token == "one"
    assert (tmp_path / "summary.txt").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "stage.json", "summary.txt"]


def test_interrupted_while_swapping_the_old_state_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    stages.write(tmp_path, STATE, saving("first"), {})
    rename = Path.rename

    def killed(path: Path, target: Path) -> Path:
        if path.parent.name.startswith(".adapter-") and Path(target).name == "adapter" and path.name == "adapter":
            raise Killed
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", killed)
    with pytest.raises(Killed):
        stages.write(tmp_path, replace(STATE, token="two"), saving("second"), {})
    assert stages.read(tmp_path).token == "one"


def test_interrupted_before_stage_json_the_folder_is_incomplete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    stages.write(tmp_path, STATE, saving("first"), {})
    monkeypatch.setattr(stages, "write_json", lambda *_: (_ for _ in ()).throw(Killed))
    with pytest.raises(Killed):
        stages.write(tmp_path, replace(STATE, token="two"), saving("second"), {})
    with pytest.raises(ContinualError, match=r"incomplete: .*weights is not the file that was saved"):
        stages.read(tmp_path)


def test_interrupted_while_a_text_is_written_the_old_one_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "summary.txt"
    stages.write_text(path, "old")
    monkeypatch.setattr(stages.os, "fsync", lambda _: (_ for _ in ()).throw(Killed))
    with pytest.raises(Killed):
        stages.write_text(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_folders_that_are_no_finished_stage(tmp_path: Path):
    with pytest.raises(ContinualError, match="gone: no such folder on this host"):
        stages.read(tmp_path / "gone")
    with pytest.raises(ContinualError, match=r"incomplete: stage\.json is not there"):
        stages.read(tmp_path)
    (tmp_path / "stage.json").write_text('{"token": "x"}')
    with pytest.raises(ContinualError, match=r"stage\.json cannot be read"):
        stages.read(tmp_path)
    (tmp_path / "stage.json").write_text("[1]")
    with pytest.raises(ContinualError, match=r"stage\.json cannot be read"):
        stages.read(tmp_path)


def test_an_adapter_that_went_missing(tmp_path: Path):
    stages.write(tmp_path, STATE, saving("first"), {})
    (tmp_path / "adapter" / "1-dbpedia" / "weights").unlink()
    with pytest.raises(ContinualError, match="incomplete"):
        stages.read(tmp_path)


def test_a_folder_that_cannot_be_written():
    with pytest.raises(ContinualError, match="--output_dir /dev/null/x: cannot be written"):
        stages.write(Path("/dev/null/x"), STATE, saving("first"), {})


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("order", "order_2", "order was order_1, this stage has order_2"),
        ("method", "seqlora", "method was olora, this stage has seqlora"),
        ("seed", 1, "seed was 0, this stage has 1"),
        ("base", {"sha256": "abd", "layers": 4}, 'base was .*"abc".* this stage has .*"abd"'),
        ("lora", {"r": 4, "alpha": 32, "targets": []}, 'lora was .*"r": 8'),
        ("data", {"dbpedia": "f01"}, "data was .*f00.*f01"),
        ("tasks", ["amazon"], "tasks was .*dbpedia.*amazon"),
    ],
)
def test_a_stage_of_another_run_is_refused(name: str, value: object, said: str):
    settings = {key: getattr(STATE, key) for key in ("order", "method", "seed", "base", "lora", "data", "tasks")}
    stages.check_follows(Path("/run/1"), STATE, settings)
    with pytest.raises(ContinualError, match=f"--previous_output_dir /run/1: {said}"):
        stages.check_follows(Path("/run/1"), STATE, settings | {name: value})
    assert name in asdict(STATE)
