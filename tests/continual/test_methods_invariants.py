"""What holds of every method for any sizes: what is trained, what stays bit for bit, what the stack computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from continual import adapters, methods
from continual.methods.method import Start
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import PeftModel
from torch import nn

from tests.continual.stacks import Model, examples, stack

pytestmark = pytest.mark.train
SIZES = st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(0, 1000))  # tasks, rank, seed
FULL = "intermediate.dense.weight"


def learnt(method: str, tasks: int, r: int, seed: int) -> tuple[Any, tuple[str, ...]]:
    """A stack in the last stage of so many tasks, and its adapters' names."""
    names = methods.choose(method, {}).adapters([f"t{number}" for number in range(tasks)])
    return stack(names, r, seed), names


def train(model: nn.Module, method: str, names: tuple[str, ...], steps: int) -> None:
    """As the training does it: the loss with the penalty, the hooks around the optimizer's step."""
    learning = methods.choose(method, {"galore_lr": 0.01}).begin(Start(model, names, learning_rate=0.05))
    own = {id(parameter) for _, parameter in learning.own}
    trained = [p for p in model.parameters() if p.requires_grad and id(p) not in own]
    optimizer = torch.optim.AdamW(trained, lr=0.05, weight_decay=0)
    for step in range(steps):
        x, gold = examples(seed=step)
        model.zero_grad(set_to_none=True)
        loss = nn.functional.cross_entropy(model(x), gold)
        penalty = learning.penalty()
        (loss if penalty is None else loss + penalty).backward()
        learning.before_step(0.05)
        optimizer.step()
        learning.after_step(0.05)


@pytest.mark.parametrize("method", methods.NAMES)
@settings(max_examples=6, deadline=None)
@given(sizes=SIZES, steps=st.integers(2, 4))
def test_all_but_the_last_adapter_is_bit_for_bit_what_it_was(method: str, sizes: tuple[int, int, int], steps: int):
    model, names = learnt(method, *sizes)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    train(model, method, names, steps)
    moved = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    wanted = {name for name in before if f".{names[-1]}." in name}
    if method == "gorp":
        wanted |= {name for name in before if name.endswith(FULL)}
    assert moved == wanted


@settings(max_examples=15, deadline=None)
@given(SIZES)
def test_a_stack_computes_w_and_the_sum_of_all_products(sizes: tuple[int, int, int]):
    """W + sum of s · B_i · A_i, multiplied out into the plain model: SeqLoRA with one task, IncLoRA with several."""
    model, names = learnt("inclora", *sizes)
    parts = dict(model.named_parameters())
    torch.manual_seed(100)
    plain = Model()
    for name, weight in plain.named_parameters():
        key = f"base_model.model.{name.removesuffix('.weight')}"
        for adapter in names:
            a, b = parts.get(f"{key}.lora_A.{adapter}.weight"), parts.get(f"{key}.lora_B.{adapter}.weight")
            if a is not None and b is not None and name.endswith(".weight"):
                weight.data += 4.0 * b.data @ a.data  # alpha is four times r in the stacks
    x, _ = examples()
    torch.testing.assert_close(model(x), plain(x), atol=1e-3, rtol=1e-3)


@settings(max_examples=10, deadline=None)
@given(SIZES)
def test_the_export_computes_what_the_stack_computes(
    tmp_path_factory: pytest.TempPathFactory, sizes: tuple[int, int, int]
):
    folder: Path = tmp_path_factory.mktemp("export")
    model, names = learnt("inclora", *sizes)
    for key, parameter in model.named_parameters():
        if f"lora_B.{names[-1]}." in key:
            parameter.data.normal_()
    adapters.save(model, names, folder / "adapter")
    assert adapters.export(folder / "adapter", folder / "one") == sizes[0] * sizes[1]
    torch.manual_seed(100)
    loaded = PeftModel.from_pretrained(Model(), folder / "one")
    x, _ = examples()
    with torch.no_grad():
        torch.testing.assert_close(loaded(x), model(x), atol=1e-3, rtol=1e-3)
