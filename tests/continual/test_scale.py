"""How a global batch is dealt out to ranks, and what DeepSpeed's config may say."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
from continual import ContinualError, scale
from continual.batches import PER_DEVICE, SHARE, Capacity, deal_to
from continual.train import main
from hypothesis import given
from hypothesis import strategies as st

from tests.continual.conftest import stage_flags

pytestmark = pytest.mark.train
capacities = st.lists(st.integers(1, 20), min_size=1, max_size=12)


@given(capacities, st.integers(1, 400))
def test_unlike_ranks_get_their_part_and_no_more_at_once_than_they_can_take(sizes: list[int], size: int):
    ranks = [Capacity(per_device) for per_device in sizes]
    if size < len(ranks):
        with pytest.raises(ContinualError, match="less than one example for each"):
            deal_to(ranks, size)
        return
    dealt = deal_to(ranks, size)
    assert sum(map(sum, dealt.sizes)) == dealt.global_size == size
    assert len({len(micro) for micro in dealt.sizes}) == 1
    for micro, capacity in zip(dealt.sizes, sizes, strict=True):
        assert max(micro) <= capacity
        assert micro[-1] > 0
        assert abs(sum(micro) - size * capacity / sum(sizes)) <= max(1, len(sizes))


def test_ranks_that_are_alike_but_for_their_size_need_equally_many_micro_batches():
    dealt = deal_to([Capacity(8), Capacity(8), Capacity(2)], 36)
    assert dealt.sizes == ((8, 8), (8, 8), (2, 2))
    assert deal_to([Capacity(8), Capacity(2)], None, 3).sizes == ((8, 8, 8), (2, 2, 2))


def test_shares_beat_sizes():
    assert deal_to([Capacity(4, 3.0), Capacity(4, 1.0)], 16).sizes == ((4, 4, 4), (1, 1, 2))
    with pytest.raises(ContinualError, match=f"{SHARE}: rank 1 has none"):
        deal_to([Capacity(4, 3.0), Capacity(4)], 16)
    with pytest.raises(ContinualError, match=r"rank 0 gets 12 of it, and can take 4 at once \* .*_steps 2 = 8"):
        deal_to([Capacity(4, 3.0), Capacity(4, 1.0)], 16, 2)


def test_a_host_has_its_own_size(monkeypatch: pytest.MonkeyPatch):
    assert Capacity.here(8, 2.0) == Capacity(8, 2.0)
    monkeypatch.setenv(PER_DEVICE, "3")
    monkeypatch.setenv(SHARE, "0.5")
    assert Capacity.here(8) == Capacity(3, 0.5)
    for name, value in ((PER_DEVICE, "1.5"), (PER_DEVICE, "0"), (SHARE, "nan"), (SHARE, "half")):
        with monkeypatch.context() as patched:
            patched.setenv(name, value)
            with pytest.raises(ContinualError, match=f"environment: {name}='{value}': wanted a number above 0"):
                Capacity.here(8)


def arguments(tmp_path: Path, config: Any = None, zero_stage: int | None = None) -> Namespace:
    path = None
    if config is not None:
        path = tmp_path / "ds.json"
        path.write_text(config if isinstance(config, str) else json.dumps(config))
    return Namespace(deepspeed=path, zero_stage=zero_stage, max_grad_norm=1.0)


BATCHES = deal_to([Capacity(2), Capacity(2)], 8)


def test_a_config_in_the_usual_form_is_taken(tmp_path: Path):
    given = {
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "optimizer": {"type": "AdamW", "params": {"lr": "auto", "weight_decay": "auto"}},
        "scheduler": {"type": "WarmupLR", "params": {"warmup_num_steps": "auto"}},
        "fp16": {"enabled": "auto", "loss_scale_window": 100},
        "bfloat16": {"enabled": "auto"},
        "zero_optimization": {"stage": 2, "overlap_comm": True, "reduce_bucket_size": "auto"},
        "wall_clock_breakdown": True,
    }
    result = scale.config(arguments(tmp_path, given), BATCHES, "fp16", 10)
    assert result is not None
    assert (result["train_micro_batch_size_per_gpu"], result["gradient_accumulation_steps"]) == (2, 2)
    assert result["fp16"] == {"enabled": True, "loss_scale_window": 100}
    assert result["zero_optimization"]["stage"] == 2
    assert result["zero_optimization"]["overlap_comm"] is True
    assert result["zero_optimization"]["reduce_bucket_size"] == 1 << 20
    assert result["wall_clock_breakdown"] is True
    assert not {"optimizer", "scheduler", "bfloat16", "bf16", "train_batch_size"} & set(result)
    assert scale.config(arguments(tmp_path), BATCHES, "fp32", 10) is None
    assert scale.config(arguments(tmp_path, {"zero_optimization": {"stage": 0}}), BATCHES, "fp32", 10) is None


@pytest.mark.parametrize(
    ("given", "stage", "said"),
    [
        ({"train_micro_batch_size_per_gpu": 4}, None, "train_micro_batch_size_per_gpu is 4, here it is 2; wanted auto"),
        ({"train_batch_size": 64}, None, "train_batch_size is 64, here it is 8; wanted auto"),
        ({"optimizer": {"params": {"lr": 0.1}}}, None, r"optimizer.params.lr is 0.1; wanted no optimizer, or auto"),
        ({"scheduler": {"params": {"warmup_num_steps": 0}}}, None, "scheduler.params.warmup_num_steps is 0"),
        ({"bf16": {"enabled": True}}, None, "bf16.enabled is True, and the precision of all ranks is fp32"),
        ({}, 1, "--zero_stage 1: zero_optimization.stage is 2 in --deepspeed"),
        ({"zero_optimization": {"stage": "2"}}, None, "stage is '2'; wanted 0, 1, 2 or 3"),
        ({"zero_optimization": 2}, None, "zero_optimization is 2; wanted an object"),
        ("{", None, "not JSON"),
        ("[]", None, "wanted a JSON object"),
    ],
)
def test_a_config_that_says_something_else(tmp_path: Path, given: Any, stage: int | None, said: str):
    config = {"zero_optimization": {"stage": 2}, **given} if isinstance(given, dict) else given
    with pytest.raises(ContinualError, match=said):
        scale.config(arguments(tmp_path, config, stage), BATCHES, "fp32", 10)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"zero_stage": 3}, "--method olora: ZeRO stage 3 cannot be used with it"),
        ({"zero_stage": 3, "method": "seqlora", "save_steps": 5}, "checkpoints within a stage are not there"),
        ({"deepspeed": "/nowhere.json"}, "--deepspeed /nowhere.json: No such file"),
        ({"zero_stage": 4}, "invalid choice: 4"),
    ],
)
def test_flags_that_cannot_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changed: dict[str, object], said: str
):
    with pytest.raises(SystemExit):
        main(stage_flags(tmp_path, tmp_path, tmp_path, **changed))
    assert said in capsys.readouterr().err
