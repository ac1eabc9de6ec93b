"""The stack of LoRAs as one adapter: equal to the stack's outputs and to what peft makes of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from continual import ContinualError, adapters
from continual.methods import memory
from continual.methods.memory import Memory
from peft import PeftModel
from safetensors.torch import load_file, save_file

from tests.continual.stacks import NAMES, Model, examples, matrices, stack

pytestmark = pytest.mark.train


def plain() -> Model:
    torch.manual_seed(100)
    return Model()


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Any, Path]:
    """A trained stack, and the folder that it was saved to."""
    model = stack()
    torch.manual_seed(5)
    for matrix in matrices(model, "lora_B", NAMES[-1]):
        matrix.data.normal_()
    folder = tmp_path / "adapter"
    adapters.save(model, NAMES, folder)
    return model, folder


def outputs(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(examples()[0])


def test_it_computes_what_the_stack_computes(saved: tuple[Any, Path], tmp_path: Path):
    model, folder = saved
    assert adapters.export(folder, tmp_path / "one") == 9
    loaded = PeftModel.from_pretrained(plain(), tmp_path / "one")
    torch.testing.assert_close(outputs(loaded), outputs(model), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(outputs(model), outputs(plain()), atol=0.1)
    merged = loaded.merge_and_unload()
    torch.testing.assert_close(outputs(merged), outputs(model), atol=1e-4, rtol=1e-4)


def test_it_is_what_peft_makes_of_the_loaded_stack(saved: tuple[Any, Path], tmp_path: Path):
    model, folder = saved
    adapters.export(folder, tmp_path / "one")
    model.add_weighted_adapter(list(NAMES), [1.0] * len(NAMES), "sum", combination_type="cat")
    tensors = load_file(tmp_path / "one" / adapters.WEIGHTS)
    for name, module in model.named_modules():
        if "sum" not in getattr(module, "lora_A", {}):
            continue
        a, b = tensors[f"{name}.lora_A.weight"], tensors[f"{name}.lora_B.weight"]
        theirs = module.lora_B["sum"].weight @ module.lora_A["sum"].weight * module.scaling["sum"]
        torch.testing.assert_close(b @ a, theirs, atol=1e-5, rtol=1e-4)
        assert a.shape == module.lora_A["sum"].weight.shape
    model.base_model.set_adapter("sum")
    loaded = PeftModel.from_pretrained(plain(), tmp_path / "one")
    torch.testing.assert_close(outputs(loaded), outputs(model), atol=1e-5, rtol=1e-4)


def refused(folder: Path, target: Path, said: str) -> None:
    before = sorted(target.parent.iterdir())
    with pytest.raises(ContinualError, match=said):
        adapters.export(folder, target)
    assert sorted(target.parent.iterdir()) == before


def test_a_target_that_is_there_is_left_alone(saved: tuple[Any, Path], tmp_path: Path):
    (tmp_path / "one").mkdir()
    refused(saved[1], tmp_path / "one", "is there already; wanted a new folder")


def test_a_folder_without_adapters(tmp_path: Path):
    refused(tmp_path, tmp_path / "one", "wanted the folder adapter of a finished stage")


def test_full_rank_weights_cannot_be_in_it(saved: tuple[Any, Path], tmp_path: Path):
    memory.write(Memory({"weight.x": torch.zeros(2, 2)}), saved[1])
    refused(saved[1], tmp_path / "one", "which no LoRA can hold")


def test_stored_examples_are_no_hindrance(saved: tuple[Any, Path], tmp_path: Path):
    memory.write(Memory(examples={"a": [("text", 0)]}), saved[1])
    assert adapters.export(saved[1], tmp_path / "one") == 9


@pytest.mark.parametrize("key", ["use_dora", "rank_pattern", "modules_to_save"])
def test_what_is_no_plain_lora(saved: tuple[Any, Path], tmp_path: Path, key: str):
    path = saved[1] / NAMES[1] / adapters.CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: {"x": 1}}))
    refused(saved[1], tmp_path / "one", f"2-b: {key} is")


def test_adapters_of_different_modules(saved: tuple[Any, Path], tmp_path: Path):
    path = saved[1] / NAMES[0] / adapters.WEIGHTS
    tensors = load_file(path)
    tensors.popitem()
    save_file(tensors, path)
    refused(saved[1], tmp_path / "one", "not of one base model and the same modules")


def test_an_adapter_cut_short(saved: tuple[Any, Path], tmp_path: Path):
    path = saved[1] / NAMES[0] / adapters.WEIGHTS
    path.write_bytes(path.read_bytes()[:-9])
    refused(saved[1], tmp_path / "one", "1-a: cannot be read")


def test_from_the_command_line(saved: tuple[Any, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert adapters.main([str(tmp_path), str(tmp_path / "one")]) == 0
    assert capsys.readouterr().out == f"continual: {tmp_path / 'one'}: one LoRA of rank 9\n"
    assert adapters.main([str(tmp_path), str(tmp_path / "one")]) == 1
    assert capsys.readouterr().err.startswith(f"continual: export: {tmp_path / 'one'} is there already")
