"""Frequent Directions: exact while all fits, and within its bound afterwards, in a memory that does not grow."""

from __future__ import annotations

import pytest
import torch
from continual.methods.sketch import root, taken_in
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

pytestmark = pytest.mark.train
WIDE, MOST = 20, 6


def rows(seed: int, count: int, decay: float = 0.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, WIDE, generator=generator) * torch.logspace(0, -decay, WIDE)


@given(st.integers(0, 10**6), st.lists(st.integers(1, 9), min_size=1, max_size=30), st.floats(0, 3))
def test_the_sum_of_the_products_is_kept_within_the_bound(seed: int, counts: list[int], decay: float):
    every, held = [rows(seed + number, count, decay) for number, count in enumerate(counts)], None
    lost = 0.0
    for some in every:
        held, less = taken_in(held, some, MOST)
        lost += less.item()
        assert len(held) <= 2 * MOST
    together = torch.cat(every)
    exact = together.T @ together
    missing = torch.linalg.eigvalsh(exact - held.T @ held)
    whole = exact.trace()
    assert missing.min() >= -1e-4 * whole  # it never holds more than there was
    if len(together) <= 2 * MOST:
        assert torch.equal(held, together)
    left = torch.linalg.svdvals(together).square().flip(0).cumsum(0).flip(0)  # by the best k directions, for each k
    left = torch.cat([left, left.new_zeros(WIDE + 1 - len(left))])
    bound = min(left[k] / (MOST - k) for k in range(MOST))
    assert missing.max() <= lost + 1e-4 * whole
    assert lost <= bound + 1e-4 * whole


def test_a_direction_that_always_comes_back_is_kept_among_noise():
    """Which the mere truncation to the strongest loses where each time something else is stronger for once."""
    steady, held = torch.zeros(WIDE), None
    steady[0] = 1.0
    for step in range(400):
        noise = torch.zeros(WIDE)
        noise[1 + step % (WIDE - 1)] = 1.2
        held, _ = taken_in(held, torch.stack([steady, noise]), MOST)
    strongest = torch.linalg.svd(held)[2][0]
    assert strongest[0].abs() > 0.99


def test_a_root_is_as_good_as_the_rows():
    some = rows(1, 50)
    short = root(some.T @ some)
    assert short.shape == (WIDE, WIDE)
    torch.testing.assert_close(short.T @ short, some.T @ some, atol=1e-3, rtol=1e-4)
    assert not root(torch.zeros(3, 3)).any()


def test_rows_of_nothing():
    held = None
    for _ in range(10):
        held, _ = taken_in(held, torch.zeros(4, WIDE), MOST)
    assert held.isfinite().all() and not held.any()
