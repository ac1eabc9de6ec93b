"""What a look at a stage's outputs says: a file that is there proves little."""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from dsdoctor.run.outputs_on_host import broken_outputs


def safetensors(path: Path, shapes: dict[str, int], *, cut: int = 0, more: int = 0) -> None:
    """A file as the library writes it: float32 tensors of so many elements; `cut` bytes are missing at its end."""
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, count in shapes.items():
        header[name] = {"dtype": "F32", "shape": [count], "data_offsets": [at, at + 4 * count]}  # type: ignore[dict-item]
        at += 4 * count
    text = json.dumps(header).encode()
    whole = struct.pack("<Q", len(text)) + text + b"\1" * (at + more)
    path.write_bytes(whole[: len(whole) - cut])


def archive(path: Path, sizes: list[int], *, cut: int = 0) -> None:
    """A file as torch.save writes it: a zip with the tensors' numbers below data/."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", b"\x80\x02.")
        for number, size in enumerate(sizes):
            file.writestr(f"archive/data/{number}", b"\1" * size)
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) - cut])


@pytest.mark.parametrize(
    ("name", "make", "said"),
    [
        ("a.safetensors", lambda path: safetensors(path, {"lora_A": 8, "lora_B": 8}), None),
        (
            "a.safetensors",
            lambda path: safetensors(path, {"lora_A": 0, "lora_B": 0}),
            "holds 2 tensors without a single number",
        ),
        ("a.safetensors", lambda path: safetensors(path, {"lora_A": 8}, cut=5), "header says"),
        ("a.safetensors", lambda path: safetensors(path, {"lora_A": 8}, more=5), "header says"),
        ("a.safetensors", lambda path: safetensors(path, {"lora_A": 8}, cut=60), "is cut off: its header wants"),
        ("a.safetensors", lambda path: path.write_bytes(b"\1\2\3"), "is cut off"),
        ("a.safetensors", lambda path: path.write_bytes(b"\2\0\0\0\0\0\0\0[]"), "cannot be read"),
        ("a.bin", lambda path: archive(path, [64, 0]), None),
        ("a.bin", lambda path: archive(path, [0, 0]), "holds 2 tensors without a single number"),
        ("a.pt", lambda path: archive(path, [64], cut=30), "is cut off, or no archive"),
        ("a.pt", lambda path: path.write_bytes(b"\x80\x02}q\0."), None),
        ("a.json", lambda path: path.write_text("{}"), None),
        ("a.json", lambda path: path.write_text('{"loss": 0.'), "cannot be read"),
        ("a.json", lambda path: path.write_bytes(b"\xff\xfe"), "cannot be read"),
        ("a.txt", lambda path: path.write_text(""), "is empty"),
    ],
)
def test_what_is_cut_off_or_holds_nothing_is_said(
    tmp_path: Path, name: str, make: Callable[[Path], object], said: str | None
) -> None:
    make(tmp_path / name)
    found = broken_outputs({"folder": str(tmp_path), "outputs": [name]})
    assert (found == []) if said is None else (len(found) == 1 and said in found[0]), found


def test_the_files_of_a_folder_are_looked_into(tmp_path: Path) -> None:
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter/adapter_config.json").write_text('{"r": 8}')
    safetensors(tmp_path / "adapter/adapter_model.safetensors", {"lora_A": 0})
    (tmp_path / "adapter/link").symlink_to("/nowhere")
    order = {"folder": str(tmp_path), "outputs": ["adapter", "results.json"]}
    empty, missing = broken_outputs(order)
    assert empty.startswith("adapter/adapter_model.safetensors holds 1 tensors without")
    assert missing == "results.json is not there"
    (tmp_path / "adapter2").mkdir()
    assert broken_outputs({"folder": str(tmp_path), "outputs": ["adapter2"]}) == ["adapter2 is empty"]
