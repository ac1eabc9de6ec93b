"""What our checks say of a config and its arguments is what transformers and DeepSpeed make of them.

A small share of what `python -m benchmarks judges` draws: the same drawing, other seeds.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.judges.agreement import Known, compared, known, untouched
from tests.judges.faults import FAULTS
from tests.judges.judge import Judge, judge
from tests.judges.pairs import Pair, draw
from tests.judges.told import told

pytestmark = [pytest.mark.train, pytest.mark.slow, pytest.mark.timeout(900)]

few = settings(
    max_examples=20,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def bench() -> Iterator[Judge]:
    pytest.importorskip("deepspeed")
    pytest.importorskip("transformers")
    with judge() as one:
        yield one


def agree(bench: Judge, pair: Pair) -> None:
    """Fails where we and the judge differ in a way that is not known."""
    seen = bench.ask(pair)
    assert untouched(pair, seen) is None, f"nothing is wrong here: {pair.text} {pair.argv}"
    with tempfile.TemporaryDirectory() as folder:
        outcome = told(pair, Path(folder))
    difference = compared(outcome.findings, seen)
    if difference is not None and not any(difference.kind.startswith(one.kind) for one in known()):
        pytest.fail(f"{difference.kind}\n{difference.detail}\n{pair.faults}\n{pair.text}{pair.argv} alone={pair.alone}")


@st.composite
def pairs(draw_one: st.DrawFn) -> Pair:
    return draw(lambda options: draw_one(st.sampled_from(options)))


@few
@given(pair=pairs())
def test_we_say_what_the_judges_do(bench: Judge, pair: Pair) -> None:
    agree(bench, pair)


RIGHT = {
    "train_micro_batch_size_per_gpu": "auto",
    "gradient_accumulation_steps": "auto",
    "bf16": {"enabled": "auto"},
    "zero_optimization": {"stage": 2},
    "optimizer": {"type": "AdamW", "params": {"lr": "auto"}},
    "scheduler": {"type": "WarmupLR", "params": {"warmup_max_lr": "auto", "warmup_num_steps": "auto"}},
}
GIVEN = {"per_device_train_batch_size": "2", "learning_rate": "1e-3", "max_steps": "2", "bf16": None}


def test_the_judge_trains_what_is_right_and_stops_what_is_wrong(bench: Judge) -> None:
    """Were it to raise always, or never, agreement would mean little."""
    seen = bench.ask(Pair(RIGHT, GIVEN))
    assert seen["raised"] is None
    assert (seen["precision"], seen["scheduler"], seen["micro_batch"], seen["stage"]) == ("bf16", "WarmupLR", 2, 2)
    wrong = bench.ask(Pair({**RIGHT, "gradient_clipping": 0.25}, GIVEN))
    assert "gradient_clipping=0.25 vs hf max_grad_norm=1.0" in wrong["raised"]


def test_the_rate_is_nothing_for_two_steps_and_the_scheduler_the_configs(bench: Judge) -> None:
    pair = Pair(RIGHT, {**GIVEN, "warmup_steps": "0", "lr_scheduler_type": "linear"})
    seen = bench.ask(pair)
    assert seen["rates"] == [0.0, 0.0]
    with tempfile.TemporaryDirectory() as folder:
        (found,) = (one for one in told(pair, Path(folder)).findings if one.name == "scheduler-overridden")
    assert "linear is replaced by WarmupLR" in found.message
    assert "first two optimizer steps have a learning rate of 0" in found.message
    assert compared([found], seen) is None
    assert compared([found], {**seen, "rates": [1e-3, 1e-3]}) is not None
    assert compared([found], {**seen, "scheduler": "LambdaLR"}) is not None


def test_every_fault_is_drawn_and_every_kind_that_is_known_is_explained() -> None:
    import random

    drawn = {fault for seed in range(400) for fault in draw(random.Random(seed).choice).faults}
    assert drawn == {fault.__name__ for fault in FAULTS}
    assert all(isinstance(one, Known) and one.kind and one.why for one in known())
