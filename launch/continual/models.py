"""The base model: found in a folder, the hub's cache or the package index, and loaded as what it is.

An encoder answers by the nearest label, a generative model (encoder and decoder, or decoder alone) by a text.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import nn

from continual import ContinualError, assets
from continual.data import Example, Task
from continual.encoder import Encoding, Matcher, embed, label_vectors, pad, tokenize
from continual.flags import BUILTIN, TINY_LLAMA
from continual.generative import Generating, Limits
from continual.weights import as_saved, digest

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Base", "Matcher", "Reading", "embed", "find", "label_vectors", "load", "pad", "reading", "tokenize"]

BUILTIN_LAYERS = 4
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
_DROPOUTS = re.compile(r"(^|_)(dropout|pdrop)(_|$)|_dropout_prob$")


@dataclass(frozen=True)
class Base:
    """Which model the adapters belong to. The path may differ from host to host, the weights may not."""

    path: Path  # absolute
    layers: int | None  # None: all that it has
    sha256: str
    gguf: str | None = None  # the file in the folder that holds all of it
    name: str = ""

    @property
    def identity(self) -> dict[str, Any]:
        """What must be equal for adapters to fit."""
        return {"sha256": self.sha256, "layers": self.layers}

    def __str__(self) -> str:
        layers = f", first {self.layers} layers" if self.layers else ""
        return f"{self.name or self.path.name}{layers}, sha256 {self.sha256[:12]}"


class Reading(Protocol):
    """A bare model, and how its examples are made."""

    @property
    def model(self) -> nn.Module:
        """The model, without adapters."""

    def inputs(self, task: Task, examples: Sequence[Example]) -> Any:
        """Some examples of a task, before adapters come to the model."""

    def learner(self, adapted: nn.Module) -> nn.Module:
        """What is trained: a module that gives the summed loss of a batch."""


def find(name_or_path: str, layers: int | None = None, kept: Path | None = None) -> Base:
    """The base model: built in, a folder as transformers saves them or with a GGUF file, or a name in the hub's cache.

    `kept` is the file that remembers what weights have which sha256.

    Raises:
        ContinualError: not such a folder, not in the cache, or the built-in model is not to be had.
    """
    name = ""
    if name_or_path == BUILTIN:
        folder, layers = assets.prepare((assets.MODEL,))[assets.MODEL.name], layers or BUILTIN_LAYERS
    elif name_or_path == TINY_LLAMA:
        folder, name = assets.prepare((assets.LLAMA,))[assets.LLAMA.name], "SmolLM2-135M-Instruct"
    else:
        folder = Path(name_or_path).expanduser().absolute()
        if not folder.is_dir() and _HUB_ID.fullmatch(name_or_path):
            folder, name = _snapshot(name_or_path), name_or_path
    weights = sorted([*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin")])
    gguf = sorted(folder.glob("*.gguf"))
    if (not weights or not (folder / "config.json").is_file()) and len(gguf) != 1:
        raise ContinualError(
            f"--model_name_or_path {name_or_path}: no config.json and *.safetensors in {folder}, nor one *.gguf; "
            f"wanted a local model folder, a name in the hub's cache, {BUILTIN} or {TINY_LLAMA}"
        )
    try:
        sha256 = digest(weights or gguf, kept)
    except OSError as error:
        raise ContinualError(f"--model_name_or_path {name_or_path}: {error.filename}: {error.strerror}") from None
    return Base(folder, layers, sha256, None if weights else gguf[0].name, name)


def _snapshot(name: str) -> Path:
    """The folder of a model of the hub: from the cache, or fetched where HF_HUB_OFFLINE=0 allows it."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    offline = os.environ.get("HF_HUB_OFFLINE", "1") != "0"
    patterns = ["*.json", "*.safetensors", "*.model", "*.txt"]
    try:
        return Path(snapshot_download(name, local_files_only=offline, allow_patterns=patterns)).absolute()
    except HFValidationError as error:
        raise ContinualError(f"--model_name_or_path {name}: no folder, and no name of the hub: {error}") from None
    except (LocalEntryNotFoundError, OSError) as error:
        reason = "and not in the hub's cache" if isinstance(error, LocalEntryNotFoundError) else f"and: {error}"
        raise ContinualError(
            f"--model_name_or_path {name}: no such folder on this host, {reason}\n"
            f"  give a folder that every host has, or fetch it once: hf download {name}\n"
            "  or let this run fetch it: HF_HUB_OFFLINE=0 in the job's env"
        ) from None


def load(base: Base) -> tuple[nn.Module, Any]:
    """The encoder, frozen and without dropout, and its tokenizer, from the folder alone.

    Raises:
        ContinualError: transformers cannot read it, or it is no encoder.
    """
    config = _config(base)
    if kind_of(config, base) != "encoder" or not getattr(config, "hidden_size", None):
        raise ContinualError(f"--model_name_or_path {base.path}: {config.model_type} is no text encoder such as BERT")
    return _load(base, config, torch.float32)


def reading(base: Base, limits: Limits, device: torch.device, precision: str, bits: int | None = None) -> Reading:
    """The model as what it is, on its device. `precision` is that of a generative base model's frozen weights.

    Raises:
        ContinualError: transformers cannot read it, or this machine cannot hold it in 4 or 8 bits.
    """
    given, base = base, as_saved(base)
    config = _config(base)
    kind = kind_of(config, base)
    if kind == "encoder":
        if bits:
            raise ContinualError(f"--load_in_bits {bits}: {base.path} is an encoder; wanted a generative model")
        model, tokenizer = load(base)
        return Encoding(model.to(device), tokenizer, limits.source, device)
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)
    model, tokenizer = _load(base, config, dtype, kind, _quantization(bits, device, dtype), device)
    model.name_or_path = str(given.path)  # what the adapters name as theirs
    bare: nn.Module = model
    return Generating(bare if bits else bare.to(device), tokenizer, kind == "seq2seq", limits, device)


def kind_of(config: Any, base: Base) -> str:
    """`seq2seq`, `causal` or `encoder`, by what the config says of it."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CAUSAL
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES as MASKED

    if getattr(config, "is_encoder_decoder", False):
        return "seq2seq"
    named = getattr(config, "architectures", None) or []
    if base.gguf or any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in named):
        return "causal"
    return "causal" if config.model_type in CAUSAL and config.model_type not in MASKED else "encoder"


def _config(base: Base) -> Any:
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(base.path, local_files_only=True, **_gguf(base))
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise _unreadable(base, error) from None
    if base.layers is not None:
        if not base.layers <= (has := getattr(config, "num_hidden_layers", 0)):
            raise ContinualError(f"--num_hidden_layers {base.layers}: {base.path} has {has}")
        config.num_hidden_layers = base.layers
    for name, value in vars(config).items():
        if _DROPOUTS.search(name) and isinstance(value, float):
            setattr(config, name, 0.0)  # the same loss for any number of ranks
    return config


def _load(
    base: Base,
    config: Any,
    dtype: torch.dtype,
    kind: str = "encoder",
    quantization: Any = None,
    device: torch.device | None = None,
) -> tuple[PreTrainedModel, Any]:
    import transformers

    auto = {"encoder": "AutoModel", "seq2seq": "AutoModelForSeq2SeqLM", "causal": "AutoModelForCausalLM"}[kind]
    # `torch_dtype` before transformers 4.56, which still takes it.
    options: dict[str, Any] = {"torch_dtype": dtype, "local_files_only": True, **_gguf(base)}
    if quantization is not None:
        options |= {"quantization_config": quantization, "device_map": {"": device}}
    try:
        model = getattr(transformers, auto).from_pretrained(base.path, config=config, **options)
        tokenizer = transformers.AutoTokenizer.from_pretrained(base.path, local_files_only=True, **_gguf(base))
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        raise _unreadable(base, error) from None
    return model.requires_grad_(False).eval(), tokenizer


def _gguf(base: Base) -> dict[str, str]:
    return {"gguf_file": base.gguf} if base.gguf else {}


def _unreadable(base: Base, error: Exception) -> ContinualError:
    mend = "\n  pip install 'gguf>=0.10'" if base.gguf and isinstance(error, ImportError) else ""
    return ContinualError(f"--model_name_or_path {base.path}: {error}{mend}")


def _quantization(bits: int | None, device: torch.device, dtype: torch.dtype) -> Any:
    """What transformers needs to hold the frozen weights in 4 or 8 bits; None where they stay as they are."""
    if not bits:
        return None
    if device.type != "cuda":
        raise ContinualError(
            f"--load_in_bits {bits}: this rank computes on the CPU; wanted a CUDA device, or no such flag"
        )
    try:
        import bitsandbytes  # noqa: F401
    except ImportError as error:
        raise ContinualError(f"--load_in_bits {bits}: {error}\n  pip install bitsandbytes") from None
    from transformers import BitsAndBytesConfig

    if bits == 8:
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)


def check_targets(model: nn.Module, base: Base, given: Sequence[str]) -> None:
    """Hold that it is known where LoRA goes: given, or in peft's table for the kind of model.

    Raises:
        ContinualError: it is not; names the linear modules that there are.
    """
    from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as TARGETS
    from transformers.pytorch_utils import Conv1D

    kind = getattr(getattr(model, "config", None), "model_type", "")
    kinds = (nn.Linear, Conv1D)
    linear = sorted({name.rpartition(".")[2] for name, part in model.named_modules() if isinstance(part, kinds)})
    ends = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    missing = [name for name in given if name.rpartition(".")[2] not in ends]
    if missing:
        raise ContinualError(
            f"--lora_target_modules {missing[0]}: no such module in {base.path}; linear ones: {', '.join(linear)}"
        )
    if not given and kind not in TARGETS:
        raise ContinualError(
            f"--lora_target_modules: peft has none for {kind!r} ({base.path}); "
            f"wanted some of its linear modules: {', '.join(linear)}"
        )


def save_activations(model: nn.Module) -> None:
    """Have the model compute its activations again in the backward pass instead of keeping them.

    transformers does that only in layers that are in training mode; dropout is 0 everywhere, so nothing else changes.

    Raises:
        ContinualError: this kind of model cannot.
    """
    try:
        # Its newer name since transformers 5.20 or so; the older one then warns.
        enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        enable({"use_reentrant": False})  # type: ignore[operator]
    except (ValueError, AttributeError) as error:
        raise ContinualError(f"--gradient_checkpointing: {error}") from None
    for part in model.modules():
        if getattr(part, "gradient_checkpointing", False):
            part.training = True
