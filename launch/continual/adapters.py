"""LoRA adapters on a base model by peft: earlier ones frozen, the stage's own trained, saved, verified."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from continual import ContinualError
from continual.models import Base

WEIGHTS = "adapter_model.safetensors"


@dataclass(frozen=True)
class Shape:
    """The LoRA settings; equal in all stages of a run. Without targets, peft's choice for the kind of model."""

    r: int = 8
    alpha: int = 32
    targets: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The settings as they stand in stage.json."""
        return asdict(self) | {"targets": list(self.targets)}


def attach(
    model: nn.Module, base: Base, shape: Shape, names: Sequence[str], saved: Path | None, seed: int
) -> nn.Module:
    """Put adapters on a model, all active and only the last one trainable: loaded where `saved` has it, else fresh.

    A fresh one starts from the seed (A random, B zero), so it is the same on every rank and adds nothing yet.

    Raises:
        ContinualError: peft cannot put LoRA on this kind of model, or a saved adapter does not fit.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        adapted = _attach(model, base, shape, names, saved, seed)
    adapted.base_model.set_adapter(list(names))  # PeftModel.set_adapter takes one name only
    for name, parameter in adapted.named_parameters():
        parameter.requires_grad = ("lora_A." in name or "lora_B." in name) and f".{names[-1]}." in name
    return adapted.eval()  # no dropout: the same loss for any number of ranks


def _attach(model: nn.Module, base: Base, shape: Shape, names: Sequence[str], saved: Path | None, seed: int) -> Any:
    from peft import LoraConfig, PeftModel, get_peft_model

    adapted: Any = None
    for place, name in enumerate(names):
        folder = saved / name if saved else None
        try:
            if folder is not None and folder.is_dir():
                if adapted is None:
                    adapted = PeftModel.from_pretrained(model, folder, adapter_name=name, torch_device="cpu")
                else:
                    adapted.load_adapter(str(folder), adapter_name=name, torch_device="cpu")
                continue
            config = LoraConfig(
                r=shape.r,
                lora_alpha=shape.alpha,
                target_modules=list(shape.targets) or None,
                base_model_name_or_path=str(base.path),
                revision=f"sha256:{base.sha256}",
            )
            torch.manual_seed(seed * 1000 + place)
            if adapted is None:
                adapted = get_peft_model(model, config, adapter_name=name)
            else:
                adapted.add_adapter(name, config)
        except (ValueError, KeyError, RuntimeError, OSError) as error:
            raise ContinualError(f"LoRA {name}: {error}") from None
    return adapted


def trainable(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """The parameters that are trained, by name."""
    return [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]


def size(model: nn.Module) -> int:
    """How many numbers the trained adapter has; every other has as many."""
    return sum(parameter.numel() for name, parameter in trainable(model) if "lora_" in name)


def save(adapted: Any, names: Sequence[str], folder: Path) -> None:
    """Write each adapter to a folder of its own below `folder`, as peft reads it."""
    adapted.save_pretrained(folder, selected_adapters=list(names), save_embedding_layers=False)


def verify(folder: Path, names: Sequence[str], expected: int) -> None:
    """Read saved adapters back: each of `expected` numbers, all finite, no lora_B of the last one still zero.

    A wrapped model that is saved in the wrong place writes adapters without a tensor, and nobody notices until they
    are needed (ZeRO-3 with state_dict() of rank 0).

    Raises:
        ContinualError: an adapter is missing, empty, not finite or untrained; says which and where.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    for name in names:
        path = folder / name / WEIGHTS
        try:
            tensors = load_file(path)
        except (OSError, SafetensorError) as error:
            raise ContinualError(f"saved adapter {path}: cannot be read back: {error}") from None
        numbers = sum(tensor.numel() for tensor in tensors.values())
        if numbers != expected:
            raise ContinualError(f"saved adapter {path}: holds {numbers} numbers, wanted {expected}")
        for key, tensor in tensors.items():
            if not tensor.isfinite().all():
                raise ContinualError(f"saved adapter {path}: {key} is not finite")
            if name == names[-1] and "lora_B" in key and not tensor.any():
                raise ContinualError(f"saved adapter {path}: {key} is all zeros: nothing was learnt")
