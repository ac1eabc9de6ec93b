"""The same losses whatever trains: one process, DDP, ZeRO, unlike ranks; and going on with others after a stop."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
from continual import ContinualError, scale, trainer
from continual.batches import PER_DEVICE, SHARE, Capacity, deal_to
from continual.train import main
from hypothesis import given
from hypothesis import strategies as st

from tests.continual.conftest import stage_flags
from tests.continual.test_several_ranks import ended, free_port, losses, torchrun

pytestmark = [pytest.mark.train, pytest.mark.timeout(900)]
several = pytest.mark.slow
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


# Sizes of the ranks by the environment, as a host has its own; and a stop that no rank foresaw.
UNLIKE = """
import os, sys
from continual import trainer
from continual.train import main

sizes = {sizes}
if sizes:
    os.environ["CONTINUAL_PER_DEVICE_TRAIN_BATCH_SIZE"] = str(sizes[int(os.environ["RANK"])])
step = trainer.Training._step

def stopped(self, number, *rest):
    if number == {stop}:
        os._exit(3)
    return step(self, number, *rest)

trainer.Training._step = stopped
code = main()
sys.stdout.flush()
os._exit(code)
"""


class Runs:
    """Stages of one order on the tiny encoder, by one process or by torchrun's."""

    def __init__(self, encoder: Path, benchmark: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.encoder, self.benchmark, self.folder, self.capsys = encoder, benchmark, folder, capsys

    def alone(self, output: str, stop: int = 0, **other: object) -> str:
        """In this process; what it printed. Stopped before a step, if one is named."""
        step = trainer.Training._step

        def stopped(training: trainer.Training, number: int, *rest: Any) -> Any:
            if number == stop:
                raise KeyboardInterrupt
            return step(training, number, *rest)

        with pytest.MonkeyPatch.context() as patched:
            for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
                patched.delenv(name, raising=False)
            patched.setattr(trainer.Training, "_step", stopped)
            try:
                assert main(self._flags(output, other)) == 0
            except KeyboardInterrupt:
                assert stop
        return self.capsys.readouterr().out

    def ranks(self, count: int, output: str, sizes: list[int] | None = None, stop: int = 0, **other: object) -> str:
        """By ranks of the given micro-batches."""
        script = self.folder / f"{output}-{count}.py"
        script.write_text(UNLIKE.format(sizes=sizes or [], stop=stop))
        program = (str(script), *self._flags(output, other))
        code, out, err = ended(torchrun(self.folder, count, program, free_port()), 600)
        assert (code != 0) == bool(stop), err
        return out

    def _flags(self, output: str, other: dict[str, object]) -> list[str]:
        return stage_flags(self.encoder, self.benchmark, self.folder, output_dir=self.folder / output, **other)


@pytest.fixture
def runs(encoder: Path, benchmark: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Runs:
    return Runs(encoder, benchmark, tmp_path, capsys)


def same(one: str, other: str) -> None:
    first, second = losses(one), losses(other)
    assert len(first) == len(second) > 0
    for seen, wanted in zip(second, first, strict=True):
        assert seen == pytest.approx(wanted, abs=2e-3)


@several
def test_unlike_ranks_under_zero_have_the_losses_of_one_process(runs: Runs):
    expected = runs.alone("one")
    out = runs.ranks(3, "zero2", [3, 3, 1], zero_stage=2)
    assert "6 steps of 8 examples (4 + 3 + 1)" in out
    same(expected, out)
    same(expected, runs.ranks(3, "ddp", [3, 3, 1]))


@several
def test_zero_3_has_them_too_where_the_method_allows_it(runs: Runs):
    expected = runs.alone("one", method="seqlora")
    same(expected, runs.ranks(2, "zero3", method="seqlora", zero_stage=3))
    accuracy = [json.loads((runs.folder / name / "results.json").read_text())["accuracy"] for name in ("one", "zero3")]
    assert accuracy[0] == accuracy[1]


@several
def test_a_stopped_stage_goes_on_with_other_ranks(runs: Runs):
    """Two ranks under ZeRO-2, then one process, then three ranks under ZeRO-1."""
    expected = runs.alone("whole")
    first = runs.ranks(2, "parts", zero_stage=2, save_steps=2, stop=4)
    second = runs.alone("parts", stop=5, save_steps=2)
    assert "resumed after step 2" in second
    third = runs.ranks(3, "parts", zero_stage=1, save_steps=2)
    assert "resumed after step 4" in third
    same(expected, "\n".join([*first.splitlines()[:0], *_steps(first, 1, 2), *_steps(second, 3, 4), third]))


def _steps(out: str, first: int, last: int) -> list[str]:
    wanted = [f"'step': {step}," for step in range(first, last + 1)]
    return [line for line in out.splitlines() if any(step in line for step in wanted)]
