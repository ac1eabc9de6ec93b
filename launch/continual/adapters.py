"""LoRA adapters on a base model by peft: earlier ones frozen, the stage's own trained, saved, verified."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from continual import ContinualError
from continual.models import Base

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


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
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to")  # GPT-2's Conv1D: peft turns it itself
        adapted = _attach(model, base, shape, names, saved, seed)
    adapted.base_model.set_adapter(list(names))  # PeftModel.set_adapter takes one name only
    for name, parameter in adapted.named_parameters():
        parameter.requires_grad = ("lora_A." in name or "lora_B." in name) and f".{names[-1]}." in name
    quiet: nn.Module = adapted.eval()  # no dropout: the same loss for any number of ranks
    return quiet


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


def export(saved: Path, target: Path) -> int:
    """Write the adapters of a finished stage (its folder `adapter`) as one adapter that computes their sum; its rank.

    The A are put on top of each other, the B side by side with alpha / r in them: what peft's
    `add_weighted_adapter(combination_type="cat")` makes on a loaded model, here without one. `target` is a new folder,
    there whole or not at all.

    Raises:
        ContinualError: no adapter lies there, one cannot be read or cannot be added to others, GORP's weights belong to
            them, or the target is there already.
    """
    from safetensors.torch import save_file

    from continual.methods import memory

    if target.exists():
        raise ContinualError(f"export: {target} is there already; wanted a new folder")
    if any(name.startswith("weight.") for name in memory.read(saved).tensors):
        raise ContinualError(f"export: {saved}: full-rank weights were trained too (gorp), which no LoRA can hold")
    parts = [_part(path.parent) for path in sorted(saved.glob(f"*/{WEIGHTS}"))]
    if not parts:
        raise ContinualError(f"export: {saved}: no */{WEIGHTS} in it; wanted the folder adapter of a finished stage")
    keys = set(parts[0][1])
    for config, tensors in parts:
        if set(tensors) != keys or config.get("base_model_name_or_path") != parts[0][0].get("base_model_name_or_path"):
            raise ContinualError(f"export: {saved}: its adapters are not of one base model and the same modules")
    rank = sum(int(config["r"]) for config, _ in parts)
    joined = {
        key: torch.cat([tensors[key] for _, tensors in parts], dim=0 if ".lora_A." in key else 1).contiguous()
        for key in sorted(keys)
    }
    config = parts[-1][0] | {"r": rank, "lora_alpha": rank, "use_rslora": False, "inference_mode": True}
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        try:
            save_file(joined, work / WEIGHTS, metadata={"format": "pt"})
            (work / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
            work.chmod(0o755)
            work.rename(target)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    except OSError as error:
        raise ContinualError(f"export: {target}: cannot be written: {error.strerror or error}") from None
    return rank


def _part(folder: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """One saved adapter's settings and matrices, its alpha / r multiplied into B."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        tensors = load_file(folder / WEIGHTS)
        scaling = config["lora_alpha"] / (config["r"] ** 0.5 if config.get("use_rslora") else config["r"])
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise ContinualError(f"export: {folder}: cannot be read: {error}") from None
    for key in ("use_dora", "lora_bias", "rank_pattern", "alpha_pattern", "modules_to_save"):
        if config.get(key):
            raise ContinualError(f"export: {folder}: {key} is {config[key]}; only plain LoRAs can be added to one")
    for key in tensors:
        if not key.endswith((".lora_A.weight", ".lora_B.weight")):
            raise ContinualError(f"export: {folder}: {key} is no matrix of a LoRA")
    return config, {key: tensor * (scaling if ".lora_B." in key else 1) for key, tensor in tensors.items()}


def main(argv: Sequence[str] | None = None) -> int:
    """Write the LoRAs of a finished stage as one adapter, for peft and for servers that load one LoRA."""
    parser = argparse.ArgumentParser(prog="python -m continual.adapters", description=main.__doc__)
    parser.add_argument("stage", type=Path, help="the --output_dir of a finished stage")
    parser.add_argument("target", type=Path, help="a new folder for the adapter")
    args = parser.parse_args(argv)
    try:
        rank = export(args.stage / "adapter", args.target)
    except ContinualError as error:
        print(f"continual: {error}", file=sys.stderr)
        return 1
    print(f"continual: {args.target}: one LoRA of rank {rank}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
