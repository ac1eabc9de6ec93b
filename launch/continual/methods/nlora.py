"""N-LoRA: a LoRA for each task, kept sparse, so that few numbers of the weights are changed by two tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from continual.methods.method import Method, layers, total


class _ProductNorm(torch.autograd.Function):
    """sum |B · A|. Both gradients follow from sign(B · A), so the product itself, as large as W, is not kept."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        product = b @ a
        sign = product.sign()
        ctx.save_for_backward(b.T @ sign, sign @ a.T)
        return product.abs().sum()

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> tuple[Tensor, Tensor]:
        of_a, of_b = ctx.saved_tensors
        return given[0] * of_a, given[0] * of_b


def product_norm(a: Tensor, b: Tensor) -> Tensor:
    """The sum of |B · A| for A (r x in) and B (out x r), computed in fp32 also under autocast."""
    with torch.autocast(a.device.type, enabled=False):
        norm: Tensor = _ProductNorm.apply(a.float(), b.float())  # type: ignore[no-untyped-call]
    return norm


@dataclass(frozen=True)
class NLoRA(Method):
    """A LoRA for each task, whose change of the weights is sparse.

    Yang et al., "Is Parameter Collision Hindering Continual Learning in LLMs?", arXiv 2410.10179:

        loss + nlora_lamda * sum over modules:  ||dW_new||_1,   dW_new = B_new · A_new

    Two sparse changes seldom touch the same number of W, and then neither undoes the other. The paper writes A · B with
    A as d x r; peft's A is r x in and B is out x r, so the change of W is B · A. The authors' program multiplies those
    two the other way round: that is an r x r matrix and exists only where in = out (not with grouped-query attention,
    not in an MLP). It is the paper's formula that is computed here, for any shape, without the LoRA's alpha / r as in
    the paper. Theirs sums over far fewer numbers, so their lamda_1 of 0.4 is no measure for this one: hence another
    name. The default was tried on order_1 with the built-in model (seed 11); more and wider modules want less.
    """

    name: ClassVar[str] = "nlora"
    nlora_lamda: float = 1e-4

    def penalty(self, model: nn.Module, adapters: Sequence[str]) -> Tensor | None:
        """The added term, of the first task too: its LoRA must leave room for the later ones."""
        if not self.nlora_lamda:
            return None
        return total([self.nlora_lamda * product_norm(a, b) for _, a, b, _ in layers(model, adapters[-1])])
