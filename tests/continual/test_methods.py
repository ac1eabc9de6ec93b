"""O-LoRA's penalty against the formula written out, and its gradient against numbers and autograd."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from continual import adapters, methods, models
from continual.methods.olora import OLoRA
from continual.methods.seqlora import SeqLoRA
from torch import nn

pytestmark = pytest.mark.train
NAMES = ("1-a", "2-b", "3-c")


@pytest.fixture(scope="module")
def adapted(encoder: Path) -> nn.Module:
    base = models.find(str(encoder))
    model = adapters.attach(models.load(base)[0], base, adapters.Shape(r=3), NAMES, None, seed=0)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator)
    return model


def matrices(model: nn.Module, kind: str, name: str) -> list[torch.Tensor]:
    return [p for key, p in model.named_parameters() if f"{kind}.{name}." in key]


def numbers(matrix: torch.Tensor) -> list[list[float]]:
    return matrix.detach().tolist()


def written_out(model: nn.Module, lamda_1: float, lamda_2: float) -> float:
    total = 0.0
    *earlier, new = NAMES
    for name in earlier:
        for a_old, a_new in zip(matrices(model, "lora_A", name), matrices(model, "lora_A", new), strict=True):
            for row in numbers(a_old):
                for other in numbers(a_new):
                    total += lamda_1 * abs(sum(x * y for x, y in zip(row, other, strict=True)))
    for matrix in matrices(model, "lora_A", new) + matrices(model, "lora_B", new):
        total += lamda_2 * sum(x * x for row in numbers(matrix) for x in row) ** 0.5
    return total


@pytest.mark.parametrize(("lamda_1", "lamda_2"), [(0.5, 0.0), (0.0, 0.1), (0.7, 0.3)])
def test_the_penalty_is_the_formula(adapted: nn.Module, lamda_1: float, lamda_2: float):
    penalty = OLoRA(lamda_1, lamda_2).penalty(adapted, NAMES)
    assert penalty is not None
    assert penalty.item() == pytest.approx(written_out(adapted, lamda_1, lamda_2), rel=1e-5)


def test_its_gradient_reaches_the_new_adapter_alone(adapted: nn.Module):
    penalty = OLoRA(0.5, 0.0).penalty(adapted, NAMES)
    adapted.zero_grad()
    penalty.backward()
    for place, a_new in enumerate(matrices(adapted, "lora_A", NAMES[-1])):
        wanted = torch.zeros_like(a_new)
        for name in NAMES[:-1]:
            a_old = matrices(adapted, "lora_A", name)[place]
            wanted += 0.5 * torch.sign(a_old @ a_new.T).T @ a_old  # d sum|A B^T| / dB
        torch.testing.assert_close(a_new.grad, wanted)
    frozen = [p for key, p in adapted.named_parameters() if f".{NAMES[-1]}." not in key]
    assert all(parameter.grad is None for parameter in frozen)


def test_the_norm_of_a_fresh_adapter_has_a_finite_gradient(adapted: nn.Module):
    b_new = matrices(adapted, "lora_B", NAMES[-1])
    kept = [matrix.data.clone() for matrix in b_new]
    try:
        for matrix in b_new:
            matrix.data.zero_()
        adapted.zero_grad()
        OLoRA(0.0, 0.1).penalty(adapted, NAMES).backward()
        assert all(matrix.grad.isfinite().all() for matrix in b_new)
    finally:
        for matrix, value in zip(b_new, kept, strict=True):
            matrix.data = value


def test_nothing_is_added_where_there_is_nothing(adapted: nn.Module):
    assert OLoRA(0.5, 0.0).penalty(adapted, NAMES[-1:]) is None  # the first task
    assert OLoRA(0.0, 0.0).penalty(adapted, NAMES) is None
    assert SeqLoRA().penalty(adapted, NAMES) is None


def test_adapters_of_the_methods():
    assert methods.choose("olora", {}).adapters(("x", "y")) == ("1-x", "2-y")
    assert methods.choose("seqlora", {"lamda_1": 0.5}).adapters(("x", "y")) == ("all",)
