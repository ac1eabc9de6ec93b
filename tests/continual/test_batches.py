"""How a global batch is dealt out to ranks, and the order of the examples."""

from __future__ import annotations

import itertools

import pytest
from continual import ContinualError, batches, trainer
from hypothesis import given
from hypothesis import strategies as st

pytestmark = pytest.mark.train
worlds = st.integers(1, 24)


@given(worlds, st.integers(1, 300), st.one_of(st.none(), st.integers(1, 40)))
def test_the_global_batch_holds_exactly_for_any_number_of_ranks(world: int, size: int, per_device: int | None):
    if size < world:
        with pytest.raises(ContinualError, match=f"less than one example for each of {world} ranks"):
            batches.deal(world, size, per_device)
        return
    dealt_out = batches.deal(world, size, per_device)
    shares = [sum(sizes) for sizes in dealt_out.sizes]
    assert sum(shares) == size
    assert max(shares) - min(shares) <= 1
    assert len({len(sizes) for sizes in dealt_out.sizes}) == 1
    assert all(sizes[-1] > 0 for sizes in dealt_out.sizes)  # there the ranks' gradients meet
    if per_device:
        assert max(itertools.chain(*dealt_out.sizes)) <= per_device
    batch = list(range(size))
    dealt = [list(dealt_out.of(rank, batch)) for rank in range(world)]
    assert list(itertools.chain(*(part for parts in dealt for part in parts))) == batch


@given(worlds, st.integers(1, 16), st.integers(1, 8))
def test_without_a_global_size_it_is_the_product(world: int, per_device: int, accumulation: int):
    dealt = batches.deal(world, None, per_device, accumulation)
    assert dealt.global_size == world * per_device * accumulation
    assert set(dealt.sizes) == {(per_device,) * accumulation}
    assert batches.deal(world, dealt.global_size, per_device, accumulation) == dealt


@given(worlds, st.integers(1, 100), st.integers(1, 12))
def test_a_given_accumulation_is_kept(world: int, size: int, accumulation: int):
    dealt = batches.deal(world, size * world, None, accumulation)
    assert {len(sizes) for sizes in dealt.sizes} == {accumulation}
    assert sum(map(sum, dealt.sizes)) == size * world


def test_numbers_that_contradict_each_other():
    with pytest.raises(ContinualError, match=r"size 16: .*size 6 \* .*steps 1 \* world size 3 is 18"):
        batches.deal(3, 16, 6, 1)


def test_unequal_ranks():
    assert batches.deal(3, 16).sizes == ((6,), (5,), (5,))
    assert batches.deal(3, 16, per_device=2).sizes == ((2, 2, 2), (1, 2, 2), (1, 2, 2))


@given(st.integers(1, 50), st.integers(0, 200), st.integers(0, 5))
def test_every_epoch_has_every_example_once(count: int, needed: int, seed: int):
    places = batches.order_of_examples(count, needed, seed)
    assert len(places) == needed
    for start in range(0, needed - count + 1, count):
        assert sorted(places[start : start + count]) == list(range(count))
    assert places == batches.order_of_examples(count, needed, seed)


@pytest.mark.parametrize("schedule", trainer.SCHEDULES)
@pytest.mark.parametrize("warmup", [0, 1, 4, 10])
def test_the_learning_rate_is_above_zero_in_every_step(schedule: str, warmup: int):
    settings = trainer.Settings(batches.deal(1), steps=10, learning_rate=0.5, schedule=schedule, warmup_steps=warmup)
    rates = [settings.learning_rate_at(step) for step in range(1, 11)]
    assert all(0 < rate <= 0.5 for rate in rates)
    assert max(rates) == 0.5
    if schedule in ("linear", "cosine"):
        assert rates[-1] < 0.5 or warmup >= 9
    if schedule != "constant" and warmup == 4:
        assert rates[:4] == pytest.approx([0.125, 0.25, 0.375, 0.5])
