"""The targets of the fuzzer on their own seeds, and on broken pieces of them: they work where there is no atheris."""

import importlib
import random

import pytest

from tests.fuzz import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_the_seeds_break_nothing(name: str) -> None:
    target = importlib.import_module(f"tests.fuzz.{name}")
    chance = random.Random(7)
    seeds = [seed[: target.LONGEST] for seed in target.seeds()]
    assert len(seeds) >= 3
    for seed in chance.sample(seeds, min(len(seeds), 12)):
        target.one(seed)
        start = chance.randrange(len(seed) or 1)
        target.one(seed[start:] + chance.randbytes(3) + seed[:start])


@pytest.mark.parametrize("name", TARGETS)
def test_words_for_mutations_are_short_texts(name: str) -> None:
    target = importlib.import_module(f"tests.fuzz.{name}")
    assert all(0 < len(word.encode()) <= 256 for word in target.words())


def test_nothing_at_all() -> None:
    for name in TARGETS:
        importlib.import_module(f"tests.fuzz.{name}").one(b"")
