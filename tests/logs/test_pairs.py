"""Failures that share their words and not their cause, each with all its sides: what a table of keywords confuses."""

import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from dsdoctor.logs.diagnose import diagnose
from dsdoctor.logs.rules import RuleSet, load_rules

PAIRS: list[dict[str, Any]] = yaml.safe_load((Path(__file__).parent / "pairs.yaml").read_text(encoding="utf-8"))
RULES: RuleSet = load_rules()
EACH = [
    pytest.param(pair["words"], cause, log, id=f"{number}-{cause}-{index}")
    for number, pair in enumerate(PAIRS)
    for cause, logs in pair["sides"].items()
    for index, log in enumerate(logs)
]


def answer(log: str) -> str:
    verdict = diagnose([("train.log", [log.encode()])], RULES).verdict
    assert verdict is not None
    return verdict.cause


@pytest.mark.parametrize(("words", "cause", "log"), EACH)
def test_each_side_has_its_own_cause(words: list[str], cause: str, log: str) -> None:
    assert any(word in log for word in words), "the log does not share the words of its pair"
    assert answer(log) == cause


@pytest.mark.parametrize(("words", "cause", "log"), EACH)
def test_each_side_after_a_training_that_went_well(words: list[str], cause: str, log: str) -> None:
    if "'learning_rate'" in log:
        return  # it is about the course of the training itself
    chance = random.Random(len(log))
    steps = [
        f"{{'loss': {chance.uniform(0.5, 3):.4f}, 'grad_norm': 1.2, 'learning_rate': 9e-05, 'epoch': {step / 100:.2f}}}"
        for step in range(60)
    ]
    assert answer("\n".join([*steps, log])) == cause


@pytest.mark.parametrize("pair", PAIRS, ids=[pair["pair"] for pair in PAIRS])
def test_a_pair_has_sides_in_several_wordings(pair: dict[str, Any]) -> None:
    assert len(pair["sides"]) >= 2
    assert sum(len(logs) for logs in pair["sides"].values()) >= 3
    assert len({log for logs in pair["sides"].values() for log in logs}) == sum(map(len, pair["sides"].values()))
