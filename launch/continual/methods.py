"""The continual-learning methods: which adapter a stage trains, and what is added to its loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn


class Method(Protocol):
    """What the trainer asks of a method."""

    @property
    def name(self) -> str:
        """The word of --method."""

    def adapters(self, tasks: Sequence[str]) -> tuple[str, ...]:
        """The adapters after the last of these tasks, the trained one last, the frozen ones before it."""

    def penalty(self, model: nn.Module, adapters: Sequence[str]) -> Tensor | None:
        """What is added to the loss of the trained adapter, or None. The same on every rank."""


@dataclass(frozen=True)
class SeqLoRA:
    """One LoRA, trained on one task after the other: the lower bound that others are compared with."""

    name: str = "seqlora"

    def adapters(self, tasks: Sequence[str]) -> tuple[str, ...]:
        """One for all tasks."""
        return ("all",)

    def penalty(self, model: nn.Module, adapters: Sequence[str]) -> Tensor | None:
        """Nothing."""
        return None


@dataclass(frozen=True)
class OLoRA:
    """A LoRA for each task, kept out of the subspaces of the earlier ones.

    Wang et al., "Orthogonal Subspace Learning for Language Model Continual Learning", arXiv 2310.14152:

        loss + lamda_1 * sum over modules, earlier tasks i:  sum |A_i · A_new^T|
             + lamda_2 * sum over the new A and B:           ||·||_2

    The paper's equation squares the entries of A_i · A_t^T; the authors' program sums their absolute values, and it is
    the program's form, with which its results were made, that is computed here. (`lamda` is the program's spelling.)
    """

    lamda_1: float = 0.5
    lamda_2: float = 0.0
    name: str = "olora"

    def adapters(self, tasks: Sequence[str]) -> tuple[str, ...]:
        """One a task, named by its place and its task."""
        return tuple(f"{place}-{task}" for place, task in enumerate(tasks, 1))

    def penalty(self, model: nn.Module, adapters: Sequence[str]) -> Tensor | None:
        """The two added terms; None where both are nothing."""
        *earlier, new = adapters
        terms: list[Tensor] = []
        for module in model.modules():
            matrices = getattr(module, "lora_A", None)
            if matrices is None or new not in matrices:
                continue
            a_new, b_new = matrices[new].weight, module.lora_B[new].weight
            if self.lamda_1 and earlier:
                a_earlier = torch.cat([matrices[name].weight for name in earlier])
                terms.append(self.lamda_1 * (a_earlier @ a_new.T).abs().sum())
            if self.lamda_2:
                terms.append(self.lamda_2 * (a_new.norm() + b_new.norm()))
        return torch.stack(terms).sum() if terms else None


def choose(name: str, lamda_1: float, lamda_2: float) -> Method:
    """The method of that name."""
    return {"olora": OLoRA(lamda_1, lamda_2), "seqlora": SeqLoRA()}[name]


NAMES = ("olora", "seqlora")
