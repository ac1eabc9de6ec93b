"""What lines of trainers say of their progress; and that other lines say nothing."""

from __future__ import annotations

import math
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsdoctor.logs.progress import Progress, parse


def said(text: str) -> dict[str, Any]:
    """What the last progress of a line differs in from one that says nothing."""
    found = list(parse(text))
    if not found:
        return {}
    nothing = Progress()
    return {
        name: value
        for name, value in vars(found[-1]).items()
        if value != getattr(nothing, name) and name != "loss_text"
    }


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        # transformers 4, and 5, which prints strings
        (
            "{'loss': 0.5, 'grad_norm': 1.25, 'learning_rate': 5e-05, 'epoch': 0.1}",
            {"loss": 0.5, "grad_norm": 1.25, "learning_rate": 5e-05, "epoch": 0.1},
        ),
        (
            "{'loss': '9.212', 'grad_norm': '2.5', 'learning_rate': '0', 'epoch': '0.125'}",
            {"loss": 9.212, "grad_norm": 2.5, "learning_rate": 0.0, "epoch": 0.125},
        ),
        # LLaMA Factory: in its log, and in trainer_log.jsonl
        (
            "[INFO|callbacks.py:143] 2024-05-01 10:00:00 >> {'loss': 1.2, 'learning_rate': 4.9e-05, 'epoch': 0.05, "
            "'throughput': 1234.5}",
            {"loss": 1.2, "learning_rate": 4.9e-05, "epoch": 0.05, "tokens_per_second": 1234.5},
        ),
        (
            '{"current_steps": 5, "total_steps": 30, "loss": 1.25, "lr": 5e-05, "epoch": 0.5, "percentage": 16.67}',
            {"step": 5, "total": 30, "loss": 1.25, "learning_rate": 5e-05, "epoch": 0.5},
        ),
        # fairseq
        (
            '{"epoch": 1, "update": 0.01, "loss": "2.1", "ups": "2.5", "lr": "1e-05", "num_updates": "100"}',
            {"step": 100, "loss": 2.1, "learning_rate": 1e-05, "epoch": 1.0, "steps_per_second": 2.5},
        ),
        # tqdm, drawn over itself; without a name it may count anything
        (
            " 12%|█▏        | 120/1000 [01:00<07:20,  2.00it/s]",
            {"step": 120, "total": 1000, "steps_per_second": 2.0, "bar": True, "sure": False},
        ),
        (
            "  1%|▏ | 9/900 [00:09<1:00, 0.5s/it]\r  1%|▏ | 10/900 [00:10<1:00, 4.00s/it]",
            {"step": 10, "total": 900, "steps_per_second": 0.25, "bar": True, "sure": False},
        ),
        (
            "Steps:   3%|▎         | 1021/34000 [14:02<7:31:30,  1.22it/s, loss=0.0771, lr=8e-5]",
            {
                "step": 1021,
                "total": 34000,
                "steps_per_second": 1.22,
                "loss": 0.0771,
                "learning_rate": 8e-5,
                "bar": True,
            },
        ),
        (
            "Epoch 3:  45%|████▌     | 9/20 [00:00<00:00, 87.14it/s, v_num=3, train_loss=2.31]",
            {
                **{"step": 9, "total": 20, "steps_per_second": 87.14, "loss": 2.31, "epoch": 3.0},
                **{"within_epoch": True, "bar": True},
            },
        ),
        # DeepSpeed
        (
            "[2024-09-11 18:20:42,520] [INFO] [logging.py:96:log_dist] [Rank 0] step=10, skipped=6, lr=[9.65e-06, "
            "9.65e-06], mom=[(0.9, 0.95), (0.9, 0.95)]",
            {"step": 10, "skipped": 6, "learning_rate": 9.65e-06},
        ),
        (
            "[INFO] [timer.py:260:stop] epoch=0/micro_step=10/global_step=5, RunningAvgSamplesPerSec=12.5, "
            "CurrSamplesPerSec=12.1, MemAllocated=1.0GB, MaxMemAllocated=2.0GB",
            {"step": 5, "samples_per_second": 12.5},
        ),
        (
            "[deepspeed] OVERFLOW! Rank 0 Skipping step. Attempted loss scale: 65536, reducing to 32768",
            {"overflow": True, "loss_scale": 32768.0},
        ),
        (
            "steps: 10 loss: 6.9123 iter time (s): 0.512 samples/sec: 62.5",
            {"step": 10, "loss": 6.9123, "samples_per_second": 62.5},
        ),
        # Megatron
        (
            " iteration       10/   95367 | consumed samples:         5120 | elapsed time per iteration (ms): 2000.0 | "
            "learning rate: 1.678E-06 | global batch size:   512 | lm loss: 1.031442E+01 | loss scale: 4096.0 |",
            {
                **{"step": 10, "total": 95367, "learning_rate": 1.678e-06, "loss": 10.31442, "loss_scale": 4096.0},
                "steps_per_second": 0.5,
            },
        ),
        # scripts
        ("step 10 loss 0.5", {"step": 10, "loss": 0.5}),
        ("iter 10: loss 4.2123, time 120.00ms, mfu 3%", {"step": 10, "loss": 4.2123}),
        (
            "step 100/1000 | loss: 2.31 | lr 3.0e-04 | 5.2 it/s | 12034 tokens/s",
            {
                **{"step": 100, "total": 1000, "loss": 2.31, "learning_rate": 3e-4, "steps_per_second": 5.2},
                "tokens_per_second": 12034.0,
            },
        ),
        (
            "Epoch: 40: Step: 1/1227, loss=3.711020, lr=0.000000",
            {"step": 1, "total": 1227, "loss": 3.71102, "learning_rate": 0.0, "epoch": 40.0, "within_epoch": True},
        ),
        (
            "Epoch [1][100/62598] lr: 1.000e-03, eta: 3 days, loss: 1.9091, grad_norm: 3.2",
            {"step": 100, "total": 62598, "loss": 1.9091, "learning_rate": 1e-3, "epoch": 1.0, "within_epoch": True},
        ),
        ("stage first step 3 sum 6", {"step": 3, "sure": False}),
    ],
)
def test_known_forms(line: str, wanted: dict[str, Any]) -> None:
    assert said(line) == wanted


@pytest.mark.parametrize(
    "line",
    [
        "{'eval_loss': 1.2, 'eval_runtime': 3.0, 'epoch': 1.0}",
        "{'train_runtime': 3.2, 'train_samples_per_second': 10.0, 'train_loss': 0.3, 'epoch': 1.0}",
        "Loading checkpoint shards:  43%|████▎     | 3/7 [00:40<00:53, 13.4s/it]",
        "Map:  12%|█▏        | 120/1000 [01:00<07:20, 200.00 examples/s]",
        "Epoch: 100%|████| 4/4 [04:20<00:00, 65.11s/it]",
        "Evaluating: 50%|████ | 5/10 [00:10<00:10, 1.00it/s]",
        "eval step 10 loss 0.3",
        "val_loss: 0.3",
        "epoch 3 loss: 0.5",  # of what, and how far, it does not say
        "step 3.10: the third chapter",
        "loss.backward() raised at line 30",
        "the model is trained for 3 epochs",
        "",
        "\r\r\r",
    ],
)
def test_what_says_nothing_of_the_training(line: str) -> None:
    assert said(line) == {}


def test_a_line_of_losses_behind_a_bar_is_read_as_well() -> None:
    found = list(parse(" 33%|███ | 10/30 [00:00<00:01, 9.0it/s]\r\x1b[A{'loss': 2.5, 'epoch': 0.3}"))
    assert [(each.step, each.loss) for each in found] == [(10, None), (None, 2.5)]


@pytest.mark.parametrize("line", ["Loss is nan, stopping training", "[step 10] loss=nan", "{'loss': nan}"])
def test_a_loss_that_is_no_number(line: str) -> None:
    assert math.isnan(said(line)["loss"])


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("0", 0.0), ("0.0", 0.0), ("0.000000", 0.0), ("0.0e+00", 0.0), ("0.00", None), ("0.0000", None)],
)
def test_a_rate_that_may_be_a_rounded_one_is_not_zero(text: str, wanted: float | None) -> None:
    assert said(f"step 3 loss 1.5 lr {text}").get("learning_rate") == wanted


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=300))
def test_any_text_is_taken(text: str) -> None:
    list(parse(text))


@pytest.mark.parametrize(
    "unit", ["a", "%|", "0%|| ", "{'loss': ", "step ", "loss: ", "1/", "Epoch ", "\r", "\x1b[", "A 5%| ", "lr=["]
)
def test_a_line_made_to_hurt_takes_no_time(unit: str) -> None:
    line = (unit * 65536)[:65536]
    began = time.perf_counter()
    list(parse(line))
    assert time.perf_counter() - began < 1.0
