"""The encoder: a text and a label's name are turned into vectors, and the nearest label is the answer.

The label vectors come from the base model before any adapter, once, and stay: recomputed by the adapted model they
would move along with the texts. Any encoder in a local folder works; the built-in one is MiniLM-L6 cut to 4 layers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from continual import ContinualError, assets
from continual.flags import BUILTIN

BUILTIN_LAYERS = 4
SCALE = 20.0  # of the cosines, before the softmax


@dataclass(frozen=True)
class Base:
    """Which model the adapters belong to. The path may differ from host to host, the weights may not."""

    path: Path  # absolute
    layers: int | None  # None: all that it has
    sha256: str

    @property
    def identity(self) -> dict[str, Any]:
        """What must be equal for adapters to fit."""
        return {"sha256": self.sha256, "layers": self.layers}

    def __str__(self) -> str:
        layers = f", first {self.layers} layers" if self.layers else ""
        return f"{self.path.name}{layers}, sha256 {self.sha256[:12]}"


def find(name_or_path: str, layers: int | None = None) -> Base:
    """The base model: `builtin`, or a folder with config, weights and tokenizer as transformers saves them.

    Raises:
        ContinualError: not such a folder, or the built-in model is not to be had.
    """
    if name_or_path == BUILTIN:
        folder, layers = assets.prepare((assets.MODEL,))[assets.MODEL.name], layers or BUILTIN_LAYERS
    else:
        folder = Path(name_or_path).expanduser().absolute()
    weights = sorted([*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin")])
    if not weights or not (folder / "config.json").is_file():
        raise ContinualError(
            f"--model_name_or_path {name_or_path}: no config.json and *.safetensors in {folder}; "
            f"wanted a local model folder, or {BUILTIN}"
        )
    digest = hashlib.sha256()
    for path in weights:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return Base(folder, layers, digest.hexdigest())


def load(base: Base) -> tuple[nn.Module, Any]:
    """The model, frozen and without dropout, and its tokenizer, from the folder alone.

    Raises:
        ContinualError: transformers cannot read it, or it is no encoder.
    """
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    try:
        config = AutoConfig.from_pretrained(base.path, local_files_only=True)
        if base.layers is not None:
            if not base.layers <= (has := getattr(config, "num_hidden_layers", 0)):
                raise ContinualError(f"--num_hidden_layers {base.layers}: {base.path} has {has}")
            config.num_hidden_layers = base.layers
        model = AutoModel.from_pretrained(base.path, config=config, local_files_only=True).float()
        tokenizer = AutoTokenizer.from_pretrained(base.path, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise ContinualError(f"--model_name_or_path {base.path}: {error}") from None
    if getattr(config, "is_encoder_decoder", False) or not getattr(config, "hidden_size", None):
        raise ContinualError(f"--model_name_or_path {base.path}: {config.model_type} is no text encoder such as BERT")
    return model.requires_grad_(False).eval(), tokenizer


class Matcher(nn.Module):
    """Scores of a batch of texts against label vectors."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor) -> Tensor:
        """The scores, a row a text and a column a label."""
        return SCALE * embed(self.encoder, input_ids, attention_mask) @ labels.T


def embed(encoder: nn.Module, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """One vector of length 1 a text: the mean over its tokens, as MiniLM's sentence model was trained with."""
    hidden = encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state.float()
    mask = attention_mask.unsqueeze(-1)
    return nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)


def tokenize(tokenizer: Any, texts: Sequence[str], length: int) -> list[list[int]]:
    """Each text as at most `length` token numbers."""
    shortened = [text[: 16 * length] for text in texts]  # hardly a tokenizer has 16 letters a token on average
    return tokenizer(shortened, truncation=True, max_length=length)["input_ids"] if shortened else []


def pad(rows: Sequence[list[int]], pad_id: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Token numbers as a rectangle, and the mask that is 1 where a token stands."""
    width = max(map(len, rows))
    ids = torch.full((len(rows), width), pad_id)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = torch.tensor(row)
        mask[place, : len(row)] = 1
    return ids.to(device), mask.to(device)


@torch.no_grad()
def label_vectors(model: nn.Module, tokenizer: Any, labels: Sequence[str], device: torch.device) -> Tensor:
    """The vectors of label names under the base model, a row a label."""
    ids, mask = pad(tokenize(tokenizer, labels, 32), tokenizer.pad_token_id or 0, device)
    return embed(model, ids, mask)
