"""Adapters on a model: which is trained, what is saved, and what a saved one must not be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from continual import ContinualError, adapters, models
from safetensors.torch import load_file, save_file
from torch import nn

pytestmark = pytest.mark.train


def load(encoder: Path) -> tuple[models.Base, nn.Module, torch.Tensor, torch.Tensor]:
    base = models.find(str(encoder))
    model, tokenizer = models.load(base)
    ids, mask = models.pad(models.tokenize(tokenizer, ["cat the dog", "oak"], 16), 0, torch.device("cpu"))
    return base, model, ids, mask


def trained(encoder: Path, names: tuple[str, ...], saved: Path | None = None) -> nn.Module:
    """Adapters whose last one has been moved off its start."""
    base, model, _, _ = load(encoder)
    adapted = adapters.attach(model, base, adapters.Shape(r=2), names, saved, seed=3)
    for _, parameter in adapters.trainable(adapted):
        parameter.data += 0.05
    return adapted


def test_only_the_last_is_trained_and_a_fresh_one_adds_nothing(encoder: Path):
    base, model, ids, mask = load(encoder)
    before = models.embed(model, ids, mask)
    adapted = adapters.attach(model, base, adapters.Shape(r=2), ("1-a", "2-b"), None, seed=0)
    torch.testing.assert_close(models.embed(adapted, ids, mask), before)
    names = [name for name, _ in adapters.trainable(adapted)]
    assert len(names) == 8  # A and B, query and value, two layers
    assert all(".2-b." in name for name in names)
    assert not adapted.training
    assert adapters.size(adapted) == 8 * 2 * 32


def test_the_start_depends_on_the_seed_alone(encoder: Path):
    def start(seed: int) -> list[torch.Tensor]:
        base, model, _, _ = load(encoder)
        torch.rand(seed + 5)  # what was drawn before must not matter
        adapted = adapters.attach(model, base, adapters.Shape(), ("1-a",), None, seed=seed)
        return [parameter.data for _, parameter in adapters.trainable(adapted)]

    assert all(torch.equal(one, two) for one, two in zip(start(4), start(4), strict=True))
    assert not all(torch.equal(one, two) for one, two in zip(start(4), start(5), strict=True))


def test_saved_and_loaded_they_compute_the_same(encoder: Path, tmp_path: Path):
    names = ("1-a", "2-b")
    one = trained(encoder, names)
    adapters.save(one, names, tmp_path)
    adapters.verify(tmp_path, names, adapters.size(one))
    base, model, ids, mask = load(encoder)
    two = adapters.attach(model, base, adapters.Shape(r=2), names, tmp_path, seed=99)
    torch.testing.assert_close(models.embed(one, ids, mask), models.embed(two, ids, mask))
    config = json.loads((tmp_path / "2-b" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(encoder)
    assert config["revision"] == f"sha256:{base.sha256}"


def test_the_next_stage_adds_one_to_the_saved(encoder: Path, tmp_path: Path):
    one = trained(encoder, ("1-a",))
    adapters.save(one, ("1-a",), tmp_path)
    base, model, ids, mask = load(encoder)
    two = adapters.attach(model, base, adapters.Shape(r=2), ("1-a", "2-b"), tmp_path, seed=0)
    torch.testing.assert_close(models.embed(two, ids, mask), models.embed(one, ids, mask))
    assert {name.split(".")[-2] for name, _ in adapters.trainable(two)} == {"2-b"}


def test_one_adapter_goes_on_being_trained(encoder: Path, tmp_path: Path):
    one = trained(encoder, ("all",))
    adapters.save(one, ("all",), tmp_path)
    base, model, ids, mask = load(encoder)
    two = adapters.attach(model, base, adapters.Shape(r=2), ("all",), tmp_path, seed=0)
    torch.testing.assert_close(models.embed(two, ids, mask), models.embed(one, ids, mask))
    assert adapters.size(two) == adapters.size(one)


def change(path: Path, kind: str) -> None:
    tensors = load_file(path)
    key = next(key for key in tensors if "lora_B" in key)
    if kind == "zero":
        tensors[key] = torch.zeros_like(tensors[key])
    elif kind == "nan":
        tensors[key][0, 0] = float("nan")
    elif kind == "lacking":
        del tensors[key]
    elif kind == "empty":
        tensors = {key: tensor[:0].clone() for key, tensor in tensors.items()}
    save_file(tensors, path)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("zero", "is all zeros: nothing was learnt"),
        ("nan", "is not finite"),
        ("lacking", "holds 448 numbers, wanted 512"),
        ("empty", "holds 0 numbers, wanted 512"),
    ],
)
def test_a_saved_adapter_that_is_not_what_was_trained(encoder: Path, tmp_path: Path, kind: str, said: str):
    one = trained(encoder, ("1-a",))
    adapters.save(one, ("1-a",), tmp_path)
    change(tmp_path / "1-a" / adapters.WEIGHTS, kind)
    with pytest.raises(ContinualError, match=said):
        adapters.verify(tmp_path, ("1-a",), adapters.size(one))


def test_a_saved_adapter_cut_short_or_missing(encoder: Path, tmp_path: Path):
    one = trained(encoder, ("1-a",))
    adapters.save(one, ("1-a",), tmp_path)
    path = tmp_path / "1-a" / adapters.WEIGHTS
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ContinualError, match="cannot be read back"):
        adapters.verify(tmp_path, ("1-a",), adapters.size(one))
    path.unlink()
    with pytest.raises(ContinualError, match="cannot be read back"):
        adapters.verify(tmp_path, ("1-a",), adapters.size(one))


def test_targets_that_the_model_does_not_have(encoder: Path):
    base, model, _, _ = load(encoder)
    with pytest.raises(ContinualError, match=r"LoRA 1-a: .*nonsense"):
        adapters.attach(model, base, adapters.Shape(targets=("nonsense",)), ("1-a",), None, seed=0)


def test_the_base_is_a_local_encoder(encoder: Path, tmp_path: Path):
    with pytest.raises(ContinualError, match=r"no such folder on this host, and not in the hub.s cache"):
        models.find("bert-base-uncased")
    with pytest.raises(ContinualError, match=r"--num_hidden_layers 3: .* has 2"):
        models.load(models.find(str(encoder), layers=3))
    assert models.find(str(encoder)).identity != models.find(str(encoder), layers=1).identity
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"junk")
    with pytest.raises(ContinualError, match="--model_name_or_path"):
        models.load(models.find(str(tmp_path)))
