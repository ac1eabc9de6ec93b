"""A small model with a stack of LoRAs, not square and with known numbers, for the tests of the methods."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

WIDE = 12  # what every module reads
NAMES = ("1-a", "2-b", "3-c")


class Attention(nn.Module):
    """Query as wide as the input, value narrower, as with grouped queries."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.value = nn.Linear(WIDE, WIDE), nn.Linear(WIDE, 6)


class Layer(nn.Module):
    """An attention that does not mix places, and an MLP whose first half has BERT's name."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = Attention()
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(WIDE, 20)})
        self.out = nn.Linear(26, WIDE)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        value = self.attention.query(x).sigmoid()[..., :6] * self.attention.value(x)
        return x + self.out(torch.cat([value, self.intermediate["dense"](x).tanh()], dim=-1))


class Model(nn.Module):
    """Two layers and three classes."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.ModuleList([Layer(), Layer()])
        self.head = nn.Linear(WIDE, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layer:
            x = layer(x)
        return self.head(x)


def stack(names: tuple[str, ...] = NAMES, r: int = 3, seed: int = 0, weights: Mapping[str, Any] | None = None) -> Any:
    """The model with LoRAs on query and value, all active, the last one trained; with `weights` by name, those."""
    torch.manual_seed(100)
    model = Model().requires_grad_(False)
    torch.manual_seed(seed)
    config = LoraConfig(r=r, lora_alpha=4 * r, target_modules=["query", "value"])
    adapted = get_peft_model(model, config, adapter_name=names[0])
    for name in names[1:]:
        adapted.add_adapter(name, config)
    adapted.base_model.set_adapter(list(names))
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name and f".{names[-1]}." not in name:
            parameter.data.normal_()
        parameter.requires_grad = "lora_" in name and f".{names[-1]}." in name
        if weights is not None and name in weights:
            parameter.data.copy_(weights[name])
    return adapted


def matrices(model: nn.Module, kind: str, name: str) -> list[nn.Parameter]:
    """The matrices lora_A or lora_B of one LoRA, in the model's order."""
    return [p for key, p in model.named_parameters() if f"{kind}.{name}." in key]


def examples(count: int = 16, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Random inputs and classes."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, WIDE, generator=generator), torch.randint(3, (count,), generator=generator)
