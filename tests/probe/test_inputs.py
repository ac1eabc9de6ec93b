"""The paths that a job names: what the probe learns of them, in bounded time, whatever lies there."""

from __future__ import annotations

import json
import os
import struct
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest

from dsdoctor.hosts import probe
from tests.probe.conftest import examine, lay, value

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab\nsize 440473133\n"


def inputs(*orders: tuple[Path, str], timeout: float = 20.0) -> list[dict[str, Any]]:
    config = {"inputs": [{"path": path.name, "role": role, "at": str(path)} for path, role in orders]}
    found: list[dict[str, Any]] = probe.inputs.fact_inputs(probe.question.Ask({**config, "timeout": timeout}))["paths"]
    return found


def one(path: Path, role: str) -> dict[str, Any]:
    (found,) = inputs((path, role))
    return found


def safetensors(data: bytes, cut: int = 0) -> bytes:
    header = json.dumps({"w": {"dtype": "F16", "shape": [len(data) // 2], "data_offsets": [0, len(data)]}}).encode()
    whole = struct.pack("<Q", len(header)) + header + data
    return whole[: len(whole) - cut]


def test_a_folder_is_the_same_wherever_its_files_are(tmp_path: Path) -> None:
    files = {"train/a b.json": "[1]", "train/语.json": "[2]", "line\nbreak": "x", "labels.json": "{}"}
    lay(tmp_path / "one", files)
    lay(tmp_path / "two", dict(reversed(list(files.items()))))
    lay(tmp_path / "two", {"cache-1a2b.arrow": "left", ".git/HEAD": "x", "train/__pycache__/a.pyc": "x", "x.lock": ""})
    first, second = inputs((tmp_path / "one", "data"), (tmp_path / "two", "data"))
    assert (first["kind"], first["files"], first["total_bytes"]) == ("folder", 4, 9)
    assert first["digest"] == second["digest"] and first["entries"] == second["entries"]
    assert [entry["name"] for entry in first["entries"]] == ["labels.json", "line\nbreak", "train"]
    (tmp_path / "two/train/a b.json").write_text("[9]")  # the same size
    changed = one(tmp_path / "two", "data")
    assert changed["digest"] != first["digest"]
    differing = [a["name"] for a, b in zip(first["entries"], changed["entries"], strict=True) if a != b]
    assert differing == ["train"]


def test_an_empty_folder_and_a_file(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "train.json").write_text("[]")
    folder, file = inputs((tmp_path / "empty", "data"), (tmp_path / "train.json", "data"))
    assert (folder["files"], folder["complete"], folder["readable"]) == (0, True, True)
    assert (file["kind"], file["files"], file["total_bytes"], file["entries"]) == ("file", 1, 2, [])
    assert file["digest"]


def test_what_is_missing_says_how_far_the_way_goes(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    found = one(tmp_path / "models/t5/large", "model")
    assert (found["kind"], found["nearest"], found["blocked"]) == ("missing", str(tmp_path / "models"), None)
    (tmp_path / "models/t5").write_text("a file, no folder")
    assert one(tmp_path / "models/t5/large", "model")["kind"] == "missing"
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    assert one(tmp_path / "link", "data")["kind"] == "missing"
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert one(tmp_path / "loop", "data")["kind"] == "missing"


def test_links_that_lead_round_in_a_ring_end(tmp_path: Path) -> None:
    lay(tmp_path / "data", {"a/x": "1"})
    (tmp_path / "data/a/up").symlink_to(tmp_path / "data")
    (tmp_path / "data/void").symlink_to(tmp_path / "nowhere")
    found = one(tmp_path / "data", "data")
    assert found["complete"] and found["unreadable"] == ["void"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_without_its_x_bit(tmp_path: Path) -> None:
    lay(tmp_path / "data", {"order/train.json": "[]", "whole.json": "[]"})
    (tmp_path / "data/order").chmod(0o666)
    try:
        assert one(tmp_path / "data", "data")["unreadable"] == ["order"]
        blocked = one(tmp_path / "data/order/train.json", "data")
        assert (blocked["kind"], blocked["blocked"]) == ("unknown", str(tmp_path / "data/order"))
    finally:
        (tmp_path / "data/order").chmod(0o755)


def test_a_lost_x_bit_as_access_tells_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the kernel answers an ordinary user, for a test that is run as root."""
    lay(tmp_path / "data", {"order/train.json": "[]"})
    locked = str(tmp_path / "data/order")
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: real(path, mode) and not (path == locked and mode & os.X_OK))
    assert one(tmp_path / "data", "data")["unreadable"] == ["order"]
    found = one(tmp_path / "data/order/train.json", "data")
    assert (found["kind"], found["blocked"]) == ("unknown", locked)
    assert "may not be entered" in found["error"]


def test_a_folder_of_very_many_files_is_given_up_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe.walk, "WALK_ENTRIES", 300)
    lay(tmp_path / "data", {f"{number:04}": "" for number in range(400)})
    found = one(tmp_path / "data", "data")
    assert not found["complete"] and found["digest"] == "" and found["entries"] == []
    assert found["files"] >= 300


def test_time_is_shared_and_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lay(tmp_path / "data", {"x": "1"})

    class Slow(probe.walk.Walk):
        def folder(self) -> dict[str, Any]:
            time.sleep(300)
            return {}

    monkeypatch.setattr(probe.walk, "Walk", Slow)
    begun = time.monotonic()
    found = inputs(*[(tmp_path / "data", "data")] * 4, timeout=4)
    assert time.monotonic() - begun < 60
    assert "no answer within" in found[0]["error"] and "hangs" in found[0]["error"]
    assert all("hangs" in each["error"] for each in found[1:]), "one wait a mount"


def test_a_model_with_its_shards(tmp_path: Path) -> None:
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors", "c": "model-3.safetensors"}}
    lay(
        tmp_path,
        {
            "config.json": json.dumps({"model_type": "t5", "torch_dtype": "float16"}),
            "tokenizer_config.json": '{"tokenizer_class": "T5Tokenizer"}',
            "spiece.model": "x",
            "model.safetensors.index.json": json.dumps(index),
            "model-1.safetensors": safetensors(b"\0" * 100),
            "model-2.safetensors": safetensors(b"\0" * 100, cut=7),
            "pytorch_model.bin": "not looked at",
        },
    )
    model = one(tmp_path, "model")["model"]
    assert model["model_type"] == "t5" and model["dtype"] == "float16" and model["tokenizer_class"] == "T5Tokenizer"
    assert model["tokenizer_files"] == ["spiece.model", "tokenizer_config.json"]
    assert (model["weights"], model["shards"]) == ("safetensors", 3)
    assert (model["missing"], model["cut_off"]) == (["model-3.safetensors"], ["model-2.safetensors"])
    assert model["largest_bytes"] == (tmp_path / "model-1.safetensors").stat().st_size


def test_pointers_of_git_lfs(tmp_path: Path) -> None:
    lay(tmp_path, {"config.json": "{}", "pytorch_model.bin": POINTER, "README.md": "x"})
    found = one(tmp_path, "model")
    assert found["pointers"] == ["pytorch_model.bin"]
    assert found["model"]["weights"] == "bin"
    (tmp_path / "single.json").write_text(POINTER)
    assert one(tmp_path / "single.json", "data")["pointers"] == ["single.json"]


def test_archives_that_are_cut_off(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "pytorch_model.bin", "w") as archive:
        archive.writestr("archive/data.pkl", "x" * 1000)
    assert one(tmp_path, "model")["model"]["cut_off"] == []
    whole = (tmp_path / "pytorch_model.bin").read_bytes()
    (tmp_path / "pytorch_model.bin").write_bytes(whole[:-60])
    assert one(tmp_path, "model")["model"]["cut_off"] == ["pytorch_model.bin"]
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.")  # the older format
    assert one(tmp_path, "model")["model"]["cut_off"] == []


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\x00\xff", "[" * 100_000])
def test_a_config_that_is_none(tmp_path: Path, text: str) -> None:
    lay(tmp_path, {"config.json": text, "model.safetensors.index.json": text})
    model = one(tmp_path, "model")["model"]
    assert model["broken"] == ["config.json", "model.safetensors.index.json"]
    assert (model["model_type"], model["missing"]) == (None, [])


def test_odd_things_in_a_model(tmp_path: Path) -> None:
    index = {"weight_map": {"a": "../../etc/passwd\0", "b": 3, "c": "dir.safetensors", "d": "pipe.safetensors"}}
    lay(tmp_path, {"config.json": '{"model_type": ["t5"]}', "model.safetensors.index.json": json.dumps(index)})
    (tmp_path / "dir.safetensors").mkdir()
    os.mkfifo(tmp_path / "pipe.safetensors")
    model = one(tmp_path, "model")["model"]
    assert model["model_type"] is None
    assert model["missing"] == ["../../etc/passwd\0", "dir.safetensors", "pipe.safetensors"]


@pytest.mark.parametrize("data", [b"", b"\xff" * 8, struct.pack("<Q", 4) + b"null", struct.pack("<Q", 9) + b"{}"])
def test_weights_that_are_none(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(data)
    assert one(tmp_path, "model")["model"]["cut_off"] == ["model.safetensors"]


def test_what_an_earlier_run_left(tmp_path: Path) -> None:
    for name in ("checkpoint-500", "checkpoint-1500", "runs", "adapter"):
        (tmp_path / name).mkdir()
    os.utime(tmp_path / "checkpoint-1500", (0, 1_700_000_000))
    found = one(tmp_path, "output")
    assert found["checkpoints"] == ["adapter", "checkpoint-1500", "checkpoint-500"]
    assert found["files"] == 4 and found["newest"] > 1_700_000_000
    assert one(tmp_path / "runs", "output")["checkpoints"] == []


def test_the_whole_probe_about_odd_names(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"d\xff '\n")
    lay(folder, {"x": "1"})
    orders = [{"path": "ä", "role": "data", "at": str(folder).encode("utf-8", "backslashreplace").decode()}, {}]
    (first, second) = value(examine({"inputs": orders}), "inputs")["paths"]
    assert first["kind"] == "missing" and second["kind"] in ("missing", "folder")


@pytest.mark.slow
def test_a_million_files_cost_bounded_time(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    for number in range(120_000):
        os.close(os.open(folder / str(number), os.O_CREAT))
    begun = time.monotonic()
    found = one(folder, "data")
    assert time.monotonic() - begun < 10 * probe.inputs.INPUT_SECONDS
    assert not found["complete"]


def test_sizes_and_parameters_are_read_without_the_weights(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    header = {
        "__metadata__": {"format": "pt"},
        "a": {"dtype": "F32", "shape": [3, 4], "data_offsets": [0, 48]},
        "b": {"dtype": "F32", "shape": [], "data_offsets": [48, 52]},
    }
    text = json.dumps(header).encode()
    (model / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(52))
    config = {"model_type": "llama", "hidden_size": 4, "_name_or_path": "/home/alice/m", "num_hidden_layers": [1]}
    (model / "config.json").write_text(json.dumps(config))
    found = probe.model_files.model_files(str(model), time.monotonic() + 5)
    assert found["parameters"] == 13
    assert found["sizes"] == {"hidden_size": 4}, "neither paths nor what is no number"


def test_parameters_are_not_counted_where_a_file_is_missing_or_no_header(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"12345678not a header")
    assert probe.model_files.model_files(str(tmp_path), time.monotonic() + 5)["parameters"] is None
    (tmp_path / "model.safetensors").unlink()
    index = {"weight_map": {"a": "model-1.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert probe.model_files.model_files(str(tmp_path), time.monotonic() + 5)["parameters"] is None


@pytest.mark.parametrize(
    "header",
    [
        b'{"a": {"shape": [Infinity], "data_offsets": [0, 4]}}',
        b'{"a": {"shape": [1e400], "data_offsets": [0, NaN]}}',
        b'{"a": {"shape": [-1], "data_offsets": [0, -4]}}',
        b'{"a": {"shape": "many"}, "b": 7}',
        b'{"a": {"shape": [' + b"9" * 5000 + b"]}}",
        b"[" * 20_000,
        b"[]",
        b"\xff",
        b"",
    ],
)
@pytest.mark.parametrize("length", [0, 1 << 30, (1 << 64) - 1])
def test_a_hostile_header_of_weights_is_no_number_of_parameters(tmp_path: Path, header: bytes, length: int) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama", "hidden_size": 4}')
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", length or len(header)) + header + bytes(4))
    found = probe.model_files.model_files(str(tmp_path), time.monotonic() + 30)
    assert found["parameters"] is None
    assert found["sizes"] == {"hidden_size": 4}


def cached(root: Path, name: str, commit: str, ref: str | None) -> Path:
    """A model in a hub's cache: weights and config as links into blobs, as huggingface_hub lays them."""
    folder = root / ("models--" + name.replace("/", "--"))
    lay(folder, {"blobs/aa": json.dumps({"model_type": "t5", "d_model": 512}), "blobs/bb": "x"})
    snapshot = folder / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").symlink_to("../../blobs/aa")
    if ref is not None:
        lay(folder, {"refs/main": ref})
    return snapshot


def of_hub(name: str, folder: Path, role: str = "model") -> dict[str, Any]:
    order = {"path": name, "role": role, "at": str(folder / name)}
    (found,) = probe.inputs.fact_inputs(probe.question.Ask({"inputs": [order], "timeout": 20.0}))["paths"]
    return dict(found)


@pytest.mark.parametrize("variable", ["HF_HUB_CACHE", "HF_HOME", "HOME"])
def test_a_models_copy_in_the_hubs_cache(tmp_path: Path, variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "TRANSFORMERS_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, str(tmp_path))
    root = {"HF_HUB_CACHE": tmp_path, "HF_HOME": tmp_path / "hub", "HOME": tmp_path / ".cache/huggingface/hub"}[
        variable
    ]
    cached(root, "google/flan-t5-small", "old", None)
    snapshot = cached(root, "google/flan-t5-small-x", "abc", "abc")
    found = of_hub("google/flan-t5-small-x", tmp_path)
    assert (found["kind"], found["hub_at"]) == ("missing", str(snapshot))
    assert (found["hub"]["model_type"], found["hub"]["sizes"]["d_model"]) == ("t5", 512)
    assert of_hub("google/flan-t5-small", tmp_path)["hub_at"].endswith("snapshots/old")
    assert "hub" not in of_hub("google/flan-t5-small-x", tmp_path, role="data")


@pytest.mark.parametrize("name", ["../../etc", "a/b/c", "", "/", "..", "a/../b", "org/none", "é/x", ".hidden/x"])
def test_no_name_leads_out_of_the_hubs_cache(tmp_path: Path, name: str) -> None:
    cached(tmp_path, "a/b", "abc", "../../..")
    (tmp_path / "models--a--b/snapshots/def").mkdir()
    assert probe.hub.snapshot_of(name, [str(tmp_path), str(tmp_path / "none")]) is None
    assert probe.hub.snapshot_of("a/b", [str(tmp_path)]) is None, "two copies, and no word which"


def test_a_program_is_known_by_its_content(tmp_path: Path) -> None:
    for name, text in (("a", "print(1)\n"), ("b", "print(2)\n"), ("c", "print(1)\n")):
        lay(tmp_path, {f"{name}/t.py": text})
    found = [one(tmp_path / name / "t.py", "code") for name in "abc"]
    assert {each["kind"] for each in found} == {"file"}
    assert found[0]["digest"] == found[2]["digest"] != found[1]["digest"]
    assert one(tmp_path / "gone.py", "code")["kind"] == "missing"
