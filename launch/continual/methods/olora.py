"""O-LoRA: a LoRA for each task, kept out of the subspaces of the earlier ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from continual.methods.method import Method, layers, total


@dataclass(frozen=True)
class OLoRA(Method):
    """A LoRA for each task, orthogonal to the frozen ones before it.

    Wang et al., "Orthogonal Subspace Learning for Language Model Continual Learning", arXiv 2310.14152:

        loss + lamda_1 * sum over modules, earlier tasks i:  sum |A_i · A_new^T|
             + lamda_2 * sum over the new A and B:           ||·||_2

    The paper's equation squares the entries of A_i · A_t^T; the authors' program sums their absolute values, and it is
    the program's form, with which its results were made, that is computed here. (`lamda` is the program's spelling.)
    """

    name: ClassVar[str] = "olora"
    lamda_1: float = 0.5
    lamda_2: float = 0.0

    def penalty(self, model: nn.Module, adapters: Sequence[str]) -> Tensor | None:
        """The two added terms; None where both are nothing."""
        *earlier, new = adapters
        terms: list[Tensor] = []
        for _, a_new, b_new, module in layers(model, new):
            if self.lamda_1 and earlier:
                a_earlier = torch.cat([module.lora_A[name].weight for name in earlier])
                terms.append(self.lamda_1 * (a_earlier @ a_new.T).abs().sum())
            if self.lamda_2:
                terms.append(self.lamda_2 * (a_new.norm() + b_new.norm()))
        return total(terms)
