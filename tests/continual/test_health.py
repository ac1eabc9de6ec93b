"""What must hold in a healthy training: each breach stops it with one line, and `dsdoctor diagnose` knows the line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from continual import AgreedError, starting
from continual.health import OVERFLOWS, Health
from continual.ranks import Place, Ranks
from continual.train import main
from torch import nn

from dsdoctor.logs.diagnose import diagnose
from tests.continual.conftest import stage_flags

pytestmark = pytest.mark.train
CPU = torch.device("cpu")


def cause(line: str) -> str:
    """The root cause that diagnose finds in a log with this line."""
    return diagnose([("log", [f"{line}\n".encode()])]).verdict.cause


@dataclass(frozen=True)
class Two(Ranks):
    """Rank 0 of two, with what the other answers."""

    other: Callable[[Any], Any] = lambda value: value

    def gather(self, value: Any) -> list[Any]:
        return [value, self.other(value)]


def health(other: Callable[[Any], Any] = lambda value: value, scales: bool = False) -> Health:
    return Health(Two(Place("a", 0, 0, 2), CPU, "fp16" if scales else "fp32", other), scales)


def breach(check: Callable[[], None]) -> str:
    """The line that a check ends the training with."""
    with pytest.raises(AgreedError) as told:
        check()
    line = f"continual: {told.value}"
    assert line.startswith("continual: health: ")
    return line


WEIGHT = [("w", nn.Parameter(torch.ones(3)))]


def test_parameters_that_moved_and_are_equal_are_well():
    health().check_parameters(2, 1e-3, WEIGHT, [torch.zeros(3)])


def test_parameters_that_did_not_move():
    line = breach(lambda: health().check_parameters(2, 1e-3, WEIGHT, [torch.ones(3)]))
    assert "rank 0 (host a): no trainable parameter has changed by step 2, learning rate 0.001" in line
    assert cause(line) == "trainable-params-not-updated"


@pytest.mark.parametrize("rate", [0.0, -0.0])
def test_a_learning_rate_of_nothing(rate: float):
    line = breach(lambda: health().check_parameters(2, rate, WEIGHT, [torch.zeros(3)]))
    assert "wanted above 0" in line
    assert cause(line) == "learning-rate-zero"


def test_a_rank_that_trains_another_model():
    def elsewhere(report: Any) -> Any:
        return "rank 1 (host b)", report[1], [(total + 1, norm) for total, norm in report[2]]

    line = breach(lambda: health(elsewhere).check_parameters(2, 1e-3, WEIGHT, [torch.zeros(3)]))
    assert "rank 1 (host b) trains another model than rank 0 (host a): at step 2 w has" in line
    assert cause(line) == "ddp-params-differ"


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number(loss: float):
    sick = health(lambda mine: ("rank 1 (host b)", loss))
    line = breach(lambda: sick.check_step(7, 0.5, float("nan")))
    assert f"rank 1 (host b): loss is {loss} at step 7" in line
    assert cause(line) == "loss-nan-divergence"


def test_a_gradient_that_is_no_number_though_every_loss_is():
    line = breach(lambda: health(lambda mine: ("rank 1 (host b)", 0.4)).check_step(7, 0.5, float("inf")))
    assert "the gradient's norm is inf at step 7" in line
    assert cause(line) == "loss-nan-divergence"


def test_a_loss_scale_may_leave_out_some_steps_and_not_all():
    scaled = health(lambda mine: ("rank 1 (host b)", 0.4), scales=True)
    for step in range(1, OVERFLOWS + 1):
        scaled.check_step(step, 0.5, float("inf"))
    scaled.check_step(OVERFLOWS + 1, 0.5, 1.0)
    for step in range(OVERFLOWS):
        scaled.check_step(step, 0.5, float("inf"))
    breach(lambda: scaled.check_step(99, 0.5, float("inf")))


@pytest.mark.parametrize(
    ("part", "said", "slug"),
    [
        ("train", "health: dbpedia: the data is exhausted: no example to train on", "data-exhausted"),
        ("test", "health: dbpedia: no held-out example with a label to measure on", "eval-loss-nan"),
    ],
)
def test_data_without_an_example(
    encoder: Path, benchmark: Path, tmp_path: Path, monkeypatch: Any, capsys: Any, part: str, said: str, slug: str
):
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    load = starting.data.load
    monkeypatch.setattr(starting.data, "load", lambda *args, **more: replace(load(*args, **more), **{part: ()}))
    assert main(stage_flags(encoder, benchmark, tmp_path)) == 1
    line = capsys.readouterr().err
    assert said in line
    assert cause(line) == slug


@pytest.mark.parametrize(("part", "slug"), [("train", "data-exhausted"), ("test", "eval-loss-nan")])
def test_a_file_without_a_label(
    encoder: Path, benchmark: Path, tmp_path: Path, monkeypatch: Any, capsys: Any, part: str, slug: str
):
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    shutil.copytree(benchmark, tmp_path / "data")
    path = tmp_path / "data" / "TC" / "dbpedia" / f"{part}.json"
    path.write_text(json.dumps([{"sentence": "a text", "label": "-"}]))
    assert main(stage_flags(encoder, tmp_path / "data", tmp_path / "out")) == 1
    line = capsys.readouterr().err
    assert f"{path}: no example has a label of labels.json" in line
    assert cause(line) == slug
