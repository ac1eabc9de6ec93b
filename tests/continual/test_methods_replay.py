"""Replay's memory and how it is mixed in; what each method says of itself; what is handed on and how it is read."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from continual import ContinualError, methods
from continual.batches import mixed, share_of
from continual.methods import memory
from continual.methods.memory import Memory
from continual.methods.method import Start
from continual.methods.replay import Replay
from hypothesis import given
from hypothesis import strategies as st

from tests.continual.conftest import LAUNCH
from tests.continual.stacks import NAMES, stack

pytestmark = pytest.mark.train
EXAMPLES = [(f"text {number}", number % 3) for number in range(40)]


def begun(kept: Memory, size: int = 10):
    return Replay(replay_size=size).begin(Start(stack(NAMES[:1]), NAMES[:1], kept))


def test_a_sample_of_each_task_is_kept_beside_those_before():
    first = begun(Memory()).keep("a", EXAMPLES)
    second = begun(first).keep("b", EXAMPLES[:4])
    assert list(second.examples) == ["a", "b"]
    assert second.examples["a"] == first.examples["a"]
    assert len(set(second.examples["a"])) == 10
    assert set(second.examples["a"]) <= set(EXAMPLES)
    assert second.examples["b"] == EXAMPLES[:4]  # fewer than asked for: all
    assert begun(Memory()).keep("a", EXAMPLES) == first  # no chance that another rank could have otherwise
    assert begun(Memory()).keep("z", EXAMPLES).examples["z"] != first.examples["a"]


@given(st.integers(1, 50), st.integers(1, 30), st.integers(2, 24), st.floats(0.01, 0.99), st.integers(1, 12))
def test_each_global_batch_has_the_share(count: int, kept: int, size: int, part: float, steps: int):
    share = share_of(part, size)
    assert 1 <= share <= size - 1
    places = mixed(count, kept, share, steps, size, 7)
    assert len(places) == steps * size
    for step in range(steps):
        batch = places[step * size : (step + 1) * size]
        assert sum(place >= count for place in batch) == share
    old = [place for place in places if place >= count]
    assert set(old) <= set(range(count, count + kept))
    seen = [old.count(place) for place in range(count, count + kept)]
    assert max(seen) - min(seen) <= 1  # gone through evenly
    assert places == mixed(count, kept, share, steps, size, 7)  # no rank, no world size in it


def test_without_memory_or_share_nothing_is_mixed_in():
    assert share_of(0.0, 16) == 0
    assert all(place < 5 for place in mixed(5, 0, 0, 3, 4, 7))


def test_memory_is_written_and_read_as_it_was(tmp_path: Path):
    kept = Memory({"basis.x": torch.randn(4, 2).T}, {"a": [("é", 1)], "b": []})
    memory.write(kept, tmp_path)
    read = memory.read(tmp_path)
    assert read.examples == {"a": [("é", 1)], "b": []}
    assert torch.equal(read.tensors["basis.x"], kept.tensors["basis.x"])


def test_an_empty_memory_leaves_nothing(tmp_path: Path):
    memory.write(Memory(), tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert memory.read(tmp_path) == Memory()
    assert memory.read(None) == Memory()


@pytest.mark.parametrize("name", [memory.TENSORS, memory.EXAMPLES])
@pytest.mark.parametrize("content", [None, b"", b"[1"])
def test_a_broken_memory_is_named(tmp_path: Path, name: str, content: bytes | None):
    memory.write(Memory({"x": torch.zeros(1)}, {"a": []}), tmp_path)
    path = tmp_path / memory.FOLDER / name
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(ContinualError, match="memory: cannot be read"):
        memory.read(tmp_path)


def test_examples_that_are_no_table(tmp_path: Path):
    memory.write(Memory(examples={"a": []}), tmp_path)
    (tmp_path / memory.FOLDER / memory.EXAMPLES).write_text(json.dumps([1, 2]))
    with pytest.raises(ContinualError, match="memory: cannot be read"):
        memory.read(tmp_path)


@pytest.mark.parametrize("name", methods.NAMES)
def test_each_method_is_chosen_by_its_word_and_starts_from_its_own_defaults(name: str):
    method = methods.choose(name, {"lamda_1": None, "unrelated": 3})
    assert method.name == name
    assert method == methods.choose(name, {})
    one_for_all = name in ("seqlora", "replay")
    assert method.adapters(("x", "y")) == (("all",) if one_for_all else ("1-x", "2-y"))
    assert (method.share > 0) == (name == "replay")


def test_flags_reach_the_method_that_has_them():
    flags = {"lamda_1": 0.75, "nlora_lamda": 0.25, "replay_share": 0.5, "galore_rank": 3}
    assert methods.choose("nlora", flags).nlora_lamda == 0.25
    assert methods.choose("replay", flags).share == 0.5
    assert methods.choose("gorp", flags).galore_rank == 3


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("seqlora", (0, 1, 2, 3)),
        ("inclora", (0, 1, 2, 3)),
        ("replay", (0, 1, 2, 3)),
        ("olora", (0, 1, 2)),
        ("nlora", (0, 1, 2)),
        ("gorp", (0,)),
    ],
)
def test_what_cannot_be_computed_on_parts_of_parameters_is_refused(name: str, allowed: tuple[int, ...]):
    method = methods.choose(name, {})
    for stage in range(4):
        if stage in allowed:
            method.check_zero(stage)
            continue
        wanted = ", ".join(map(str, allowed))
        with pytest.raises(ContinualError, match=rf"--method {name}: ZeRO stage {stage} .*wanted stage {wanted}$"):
            method.check_zero(stage)


def test_the_words_of_method_cost_no_torch():
    code = "import sys; from continual import methods; sys.exit('torch' in sys.modules or not methods.NAMES)"
    subprocess.run([sys.executable, "-c", code], cwd=LAUNCH, check=True, timeout=120)
