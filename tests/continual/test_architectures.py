"""Models of real architectures from local folders: where LoRA goes, trained for a few steps, and resumed."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from continual import ContinualError, adapters, models, trainer
from continual.generative import Limits
from continual.train import main

from tests.continual.conftest import stage_flags

pytestmark = [pytest.mark.train, pytest.mark.timeout(600)]
CPU = torch.device("cpu")
# Kind: where LoRA goes unless it is told, with the numbers that a module reads and writes.
TARGETS = {
    "t5": {"q": (32, 32), "v": (32, 32)},
    "flan-t5": {"q": (32, 32), "v": (32, 32)},
    "llama": {"q_proj": (32, 32), "v_proj": (32, 16)},  # two heads of keys and values for four of queries
    "llama-tied": {"q_proj": (32, 32), "v_proj": (32, 16)},
    "qwen2": {"q_proj": (32, 32), "v_proj": (32, 16)},
    "gpt2": {"c_attn": (32, 96)},  # all three in one Conv1D
}


@pytest.mark.parametrize("kind", TARGETS)
def test_lora_goes_where_the_architecture_has_its_attention(tiny: Callable[[str], Path], kind: str):
    base = models.find(str(tiny(kind)))
    reading = models.reading(base, Limits(64), CPU, "fp32")
    models.check_targets(reading.model, base, ())
    adapted = adapters.attach(reading.model, base, adapters.Shape(r=4), ["one"], None, 0)
    seen: dict[str, tuple[int, int]] = {}
    for name, module in adapted.named_modules():
        if hasattr(module, "lora_A"):
            reads, writes = module.lora_A["one"].weight.shape[1], module.lora_B["one"].weight.shape[0]
            seen[name.rpartition(".")[2]] = (reads, writes)
    assert seen == TARGETS[kind]
    assert {name.split(".")[-3] for name, _ in adapters.trainable(adapted)} == {"lora_A", "lora_B"}


@pytest.mark.parametrize("kind", ["flan-t5", "llama-tied", "qwen2", "gpt2"])
def test_interrupted_it_ends_as_uninterrupted(
    tiny: Callable[[str], Path], benchmark: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
):
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    shape: dict[str, Any] = {"max_source_length": 160, "max_steps": 3, "max_predict_samples": 4}
    assert main(stage_flags(tiny(kind), benchmark, tmp_path, output_dir=tmp_path / "whole", **shape)) == 0
    again = stage_flags(tiny(kind), benchmark, tmp_path, output_dir=tmp_path / "again", save_steps=2, **shape)
    step = trainer.Training._step

    def stopped(self: trainer.Training, number: int, *rest: Any) -> Any:
        if number == 3:
            raise KeyboardInterrupt
        return step(self, number, *rest)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(trainer.Training, "_step", stopped)
        main(again)
    assert main(again) == 0
    whole, resumed = (
        [path.read_bytes() for path in sorted((tmp_path / name / "adapter").glob("*/*.safetensors"))]
        for name in ("whole", "again")
    )
    assert len(whole) == 1
    assert whole == resumed


def test_what_can_be_given_is_named_for_conv1d_too(tiny: Callable[[str], Path]):
    base = models.find(str(tiny("gpt2")))
    model = models.reading(base, Limits(64), CPU, "fp32").model
    with pytest.raises(ContinualError, match=r"--lora_target_modules q_proj: .* c_attn, c_fc, c_proj, lm_head"):
        models.check_targets(model, base, ("q_proj",))


def test_a_name_of_the_hub_is_found_in_its_cache_offline(
    tiny: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from huggingface_hub import constants

    place = tmp_path / "models--someone--tiny-llama"
    shutil.copytree(tiny("llama"), place / "snapshots" / "abc")
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text("abc")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    base = models.find("someone/tiny-llama")
    assert base.path == place / "snapshots" / "abc"
    assert base.sha256 == models.find(str(tiny("llama"))).sha256
    assert str(base).startswith("someone/tiny-llama, sha256 ")


def test_few_bits_without_bitsandbytes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ContinualError, match=r"(?s)--load_in_bits 4: .*bitsandbytes.*\n  pip install bitsandbytes"):
        models._quantization(4, torch.device("cuda"), torch.bfloat16)
