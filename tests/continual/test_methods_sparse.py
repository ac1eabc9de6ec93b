"""N-LoRA's penalty against the formula written out, for any shape, its gradient by hand and by autograd."""

from __future__ import annotations

import pytest
import torch
from continual.methods.nlora import NLoRA, product_norm
from hypothesis import given
from hypothesis import strategies as st

from tests.continual.stacks import NAMES, matrices, stack

pytestmark = pytest.mark.train


@st.composite
def loras(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor]:
    """A (r x in) and B (out x r) of any small shape, in double precision."""
    r, wide, out = (draw(st.integers(1, 6)) for _ in range(3))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    make = {"generator": generator, "dtype": torch.float32}
    return torch.randn(r, wide, **make), torch.randn(out, r, **make)


def written_out(a: torch.Tensor, b: torch.Tensor) -> float:
    rows_a, rows_b = a.tolist(), b.tolist()
    changes = [
        sum(row[k] * rows_a[k][column] for k in range(len(rows_a)))
        for row in rows_b
        for column in range(len(rows_a[0]))
    ]
    return sum(abs(change) for change in changes)


@given(loras())
def test_the_norm_is_that_of_the_change_of_the_weights(lora: tuple[torch.Tensor, torch.Tensor]):
    assert product_norm(*lora).item() == pytest.approx(written_out(*lora), rel=1e-4, abs=1e-5)


@given(loras(), st.floats(0.1, 10))
def test_its_gradient_is_autograds(lora: tuple[torch.Tensor, torch.Tensor], factor: float):
    a, b = (matrix.clone().requires_grad_() for matrix in lora)
    (factor * product_norm(a, b)).backward()
    a_plain, b_plain = (matrix.clone().requires_grad_() for matrix in lora)
    (factor * (b_plain @ a_plain).abs().sum()).backward()
    torch.testing.assert_close(a.grad, a_plain.grad)
    torch.testing.assert_close(b.grad, b_plain.grad)


def test_its_gradient_by_hand():
    a, b = torch.tensor([[1.0, -2.0]], requires_grad=True), torch.tensor([[3.0], [-1.0]], requires_grad=True)
    product_norm(a, b).backward()  # |3| + |-6| + |-1| + |2| = (|3| + |-1|) * (|1| + |-2|)
    torch.testing.assert_close(a.grad, torch.tensor([[4.0, -4.0]]))
    torch.testing.assert_close(b.grad, torch.tensor([[3.0], [-3.0]]))


def test_the_penalty_is_the_sum_over_the_new_lora_alone():
    model = stack()
    for matrix in matrices(model, "lora_B", NAMES[-1]):
        matrix.data.normal_()
    penalty = NLoRA(nlora_lamda=0.01).penalty(model, NAMES)
    pairs = zip(matrices(model, "lora_A", NAMES[-1]), matrices(model, "lora_B", NAMES[-1]), strict=True)
    assert penalty.item() == pytest.approx(0.01 * sum(written_out(a, b) for a, b in pairs), rel=1e-4)
    penalty.backward()
    with_gradient = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert with_gradient == {name for name, _ in model.named_parameters() if f".{NAMES[-1]}." in name}


def test_a_fresh_lora_costs_nothing_and_its_gradient_is_finite():
    model = stack()
    penalty = NLoRA(nlora_lamda=1.0).penalty(model, NAMES)
    assert penalty.item() == 0  # B is zero
    penalty.backward()
    assert all(matrix.grad.isfinite().all() for matrix in matrices(model, "lora_A", NAMES[-1]))


def test_it_counts_in_the_first_task_too_and_not_without_weight():
    assert NLoRA(nlora_lamda=0.1).penalty(stack(NAMES[:1]), NAMES[:1]) is not None
    assert NLoRA(nlora_lamda=0.0).penalty(stack(), NAMES) is None


def test_under_autocast_it_is_computed_in_full_precision():
    a, b = torch.full((1, 300), 1e-3), torch.full((300, 1), 1e-3)
    with torch.autocast("cpu", torch.bfloat16):
        norm = product_norm(a, b)
    assert norm.dtype == torch.float32
    assert norm.item() == pytest.approx(0.09, rel=1e-5)
