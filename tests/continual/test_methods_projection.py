"""GORP: projections against the formula written out, what they must keep, and what is handed to the next stage."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from continual import ContinualError
from continual.methods import GORP_SPACES, memory
from continual.methods.gorp import BETA_1, BETA_2, EPSILON, GORP, extended, off
from continual.methods.memory import Memory
from continual.methods.method import Learning, Start
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.continual.stacks import NAMES, WIDE, examples, stack

pytestmark = pytest.mark.train
RATE = 0.05
METHOD = GORP(galore_rank=2, galore_lr=0.02, galore_scale=0.5, galore_update_proj_gap=2, gorp_energy=0.9)
FULL = "base_model.model.layer.{}.intermediate.dense.weight"


def basis_of(seed: int, count: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(WIDE, count, generator=generator))[0][:, :count]


def loras(model: nn.Module) -> dict[str, nn.Parameter]:
    """A of the trained LoRA by the name that its basis has."""
    return {
        name.removesuffix(f".{NAMES[-1]}.weight"): parameter
        for name, parameter in model.named_parameters()
        if f"lora_A.{NAMES[-1]}." in name
    }


def earlier(model: nn.Module, count: int = 3) -> Memory:
    """A memory as the stages before could have left it: bases of `count` dimensions, the weights as they are."""
    weights = {name: p for name, p in model.named_parameters() if "intermediate.dense.weight" in name}
    tensors = {f"weight.{name}": weight.detach().clone() for name, weight in weights.items()}
    for seed, name in enumerate([*loras(model), *weights]):
        tensors[f"basis.{name}"] = basis_of(seed, count)
    return Memory(tensors)


def begun(model: nn.Module, kept: Memory, method: GORP = METHOD) -> Learning:
    return method.begin(Start(model, NAMES, kept, RATE))


def optimizer(model: nn.Module, learning: Learning) -> torch.optim.Adam:
    own = {id(parameter) for _, parameter in learning.own}
    trained = [p for p in model.parameters() if p.requires_grad and id(p) not in own]
    return torch.optim.AdamW(trained, lr=RATE, weight_decay=0)


def train(model: nn.Module, learning: Learning, steps: int, first: int = 0, adam: torch.optim.Adam | None = None):
    """What the training does with the hooks; gives its optimizer."""
    adam = adam or optimizer(model, learning)
    for step in range(first, first + steps):
        x, gold = examples(seed=step)
        model.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(model(x), gold).backward()
        learning.before_step(RATE)
        adam.step()
        learning.after_step(RATE)
    return adam


def values(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


@given(st.integers(0, 10**6), st.integers(1, WIDE), st.integers(1, 8))
def test_what_is_projected_off_is_orthogonal_and_stays(seed: int, count: int, rows: int):
    basis = basis_of(seed, count)
    matrix = torch.randn(rows, WIDE, generator=torch.Generator().manual_seed(seed + 1))
    rest = off(matrix, basis)
    torch.testing.assert_close(rest @ basis, torch.zeros(rows, count), atol=1e-5, rtol=0)
    torch.testing.assert_close(off(rest, basis), rest, atol=1e-5, rtol=0)
    torch.testing.assert_close(rest + (matrix @ basis) @ basis.T, matrix, atol=1e-5, rtol=0)
    assert off(matrix, None) is matrix


@given(st.integers(0, 10**6), st.integers(0, WIDE), st.integers(1, 8), st.floats(0.05, 0.99))
def test_a_basis_grows_by_the_fewest_directions(seed: int, count: int, rows: int, energy: float):
    generator = torch.Generator().manual_seed(seed)
    old = basis_of(seed, count) if count else None
    moment = torch.randn(rows, WIDE, generator=generator) * torch.logspace(0, -3, WIDE)
    new = extended(old, moment, energy)
    torch.testing.assert_close(new.T @ new, torch.eye(new.shape[1]), atol=1e-5, rtol=0)
    if old is not None:
        torch.testing.assert_close(off(old.T, new), torch.zeros(count, WIDE), atol=1e-5, rtol=0)
    held = 1 - (off(moment, new).norm() / moment.norm()).square().item()
    assert held >= energy - 1e-4
    if new.shape[1] > count:  # with one direction less it would not do: the best that many cannot either
        values_ = torch.linalg.svdvals(off(moment, old).double()).square()
        fewer = values_[new.shape[1] - count - 1 :].sum() / moment.double().square().sum()
        assert 1 - fewer.item() < energy + 1e-4


def test_a_moment_of_nothing_adds_nothing():
    assert extended(None, torch.zeros(3, WIDE), 0.9).shape == (WIDE, 0)
    basis = basis_of(1, 4)
    inside = torch.randn(3, 4) @ basis.T
    assert extended(basis, inside, 0.9).shape == (WIDE, 4)
    assert extended(basis_of(1, WIDE), torch.randn(3, WIDE), 0.9).shape == (WIDE, WIDE)
    assert extended(None, torch.zeros(0, WIDE), 0.9).shape == (WIDE, 0)


def test_what_never_had_a_gradient_keeps_its_basis():
    model = stack()
    kept = earlier(model)
    handed = begun(model, kept).keep("c", [])
    for name, basis in handed.tensors.items():
        if name.startswith("basis."):
            same_space(basis, kept.tensors[name])


def written_out(model: nn.Module, kept: Mapping[str, Tensor], steps: int) -> dict[str, Tensor]:
    """The formula, with projection matrices and Adam spelled out; gives the parameters after the steps."""
    now = {name: p for name, p in model.named_parameters() if f".{NAMES[-1]}." in name or "intermediate" in name}
    now = {name: p.requires_grad_() for name, p in now.items() if name.endswith("weight")}
    whole = {name: torch.eye(WIDE) for name in now}
    for name in now:
        key = f"basis.{name.removesuffix(f'.{NAMES[-1]}.weight')}"
        if key in kept:
            whole[name] = torch.eye(WIDE) - kept[key] @ kept[key].T
    for name, p in now.items():
        if "lora_A" in name:
            p.data = p.data @ whole[name]
    first: dict[str, Tensor] = {}
    second: dict[str, Tensor] = {}
    turned: dict[str, Tensor] = {}
    for step in range(1, steps + 1):
        x, gold = examples(seed=step - 1)
        gradients = torch.autograd.grad(nn.functional.cross_entropy(model(x), gold), list(now.values()))
        for (name, p), gradient in zip(now.items(), gradients, strict=True):
            inside = whole[name] if "lora_B" not in name else torch.eye(gradient.shape[1])
            g = gradient @ inside
            turn = torch.eye(g.shape[1])
            if "intermediate" in name:
                if step % 2 == 1:  # every second step, from the first
                    vectors = torch.linalg.svd(g, full_matrices=False)[2][:2].T
                    if name in turned:
                        first[name] = first[name] @ turned[name].T @ vectors
                    turned[name] = vectors
                turn = turned[name]
            g = g @ turn
            first[name] = BETA_1 * first.get(name, torch.zeros_like(g)) + (1 - BETA_1) * g
            second[name] = BETA_2 * second.get(name, torch.zeros_like(g)) + (1 - BETA_2) * g * g
            made = first[name] / (1 - BETA_1**step) / ((second[name] / (1 - BETA_2**step)).sqrt() + EPSILON)
            rate = 0.02 * 0.5 if "intermediate" in name else RATE
            p.data -= rate * made @ turn.T @ inside
    return {name: p.detach() for name, p in now.items()}


def test_three_steps_are_the_formula():
    model, other = stack(), stack()
    kept = earlier(model)
    train(model, begun(model, kept), 3)
    wanted = written_out(other, kept.tensors, 3)
    now = values(model)
    assert len(wanted) == 2 * (2 + 2 + 1)  # A and B of query and value, and a full-rank weight, in two layers
    for name, value in wanted.items():
        torch.testing.assert_close(now[name], value, atol=2e-4, rtol=1e-3)


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 6), st.integers(1, WIDE - 1))
def test_nothing_moves_within_the_earlier_subspace(steps: int, count: int):
    model = stack()
    kept, before = earlier(model, count), values(model)
    train(model, begun(model, kept), steps)  # an A that has not been trained before starts outside already
    moved = {name: value - before[name] for name, value in values(model).items()}
    for name, full in [(n, FULL.format(n)) for n in (0, 1)]:
        inside = moved[full] @ kept.tensors[f"basis.{full}"]
        assert moved[full].norm() > 1e-3, name
        assert inside.norm() <= 1e-5 * (1 + before[full].norm())
    for name in loras(model):
        a = values(model)[f"{name}.{NAMES[-1]}.weight"]
        assert moved[f"{name}.{NAMES[-1]}.weight"].norm() > 1e-3
        assert (a @ kept.tensors[f"basis.{name}"]).norm() <= 1e-5 * (1 + a.norm())


def test_without_the_second_projection_adam_leaves_the_subspace():
    """What the authors' program does: the reason for projecting Adam's step too."""
    model = stack()
    kept = earlier(model)
    learning = begun(model, kept)
    before = values(model)
    learning.after_step = lambda rate: None
    train(model, learning, 3)
    name = next(iter(loras(model)))
    change = values(model)[f"{name}.{NAMES[-1]}.weight"] - before[f"{name}.{NAMES[-1]}.weight"]
    assert (change @ kept.tensors[f"basis.{name}"]).norm() > 1e-2 * change.norm()


def test_what_is_not_trained_stays_bit_for_bit():
    model = stack()
    before = values(model)
    train(model, begun(model, earlier(model)), 4)
    changed = {name for name, value in values(model).items() if not torch.equal(value, before[name])}
    assert changed == {n for n in before if f".{NAMES[-1]}." in n} | {FULL.format(0), FULL.format(1)}


def test_the_next_stage_starts_from_the_weights_and_the_grown_bases(tmp_path: Path):
    model = stack()
    kept = earlier(model)
    learning = begun(model, kept)
    train(model, learning, 4)
    handed = learning.keep("c", [])
    memory.write(handed, tmp_path)
    read = memory.read(tmp_path)
    assert read.tensors.keys() == kept.tensors.keys()
    for name, basis in read.tensors.items():
        if name.startswith("basis."):
            torch.testing.assert_close(off(kept.tensors[name].T, basis), torch.zeros(3, WIDE), atol=1e-5, rtol=0)
            assert 3 < basis.shape[1] <= WIDE
    following = stack()
    begun(following, read)
    for number in (0, 1):
        assert torch.equal(values(following)[FULL.format(number)], values(model)[FULL.format(number)])


def test_it_goes_on_alike_from_the_middle():
    through = stack()
    kept = earlier(through)
    learning = begun(through, kept)
    train(through, learning, 5)

    one = stack()
    half = begun(one, kept)
    adam = train(one, half, 3)
    saved, now = {name: value.clone() for name, value in half.state().items()}, values(one)
    two = stack()
    rest = begun(two, kept)
    for name, parameter in two.named_parameters():
        parameter.data.copy_(now[name])
    rest.restore(saved)
    again = optimizer(two, rest)
    again.load_state_dict(adam.state_dict())
    train(two, rest, 2, first=3, adam=again)
    for name, value in values(through).items():
        assert torch.equal(value, values(two)[name]), name
    assert all(
        torch.equal(value, rest.keep("c", []).tensors[name]) for name, value in learning.keep("c", []).tensors.items()
    )


def test_the_learning_rates_course_holds_for_the_full_rank_weights_too():
    moved = []
    for rate in (RATE, RATE / 2):
        model = stack()
        learning, before = begun(model, Memory()), values(model)
        x, gold = examples()
        nn.functional.cross_entropy(model(x), gold).backward()
        learning.before_step(rate)
        learning.after_step(rate)
        moved.append(values(model)[FULL.format(0)] - before[FULL.format(0)])
    torch.testing.assert_close(moved[0], 2 * moved[1], atol=1e-7, rtol=1e-3)


@pytest.mark.parametrize("pattern", ["nothing", "intermediate"])
def test_modules_that_are_not_there(pattern: str):
    with pytest.raises(ContinualError, match=rf"--optim_target_modules {pattern}: no weight .*whole names"):
        begun(stack(), Memory(), GORP(optim_target_modules=pattern))


def test_other_modules_than_in_the_stage_before():
    model = stack()
    kept = earlier(model)
    with pytest.raises(ContinualError, match="wanted the same --optim_target_modules in all stages"):
        begun(model, kept, GORP(optim_target_modules=r".*attention\.query"))


def test_a_module_with_a_lora_may_be_chosen():
    learning = begun(stack(), Memory(), GORP(optim_target_modules=r".*attention\.value"))
    assert [name.split(".")[-3:] for name, _ in learning.own] == [["value", "base_layer", "weight"]] * 2


def test_quantized_weights_are_refused():
    model = stack()
    dense = model.base_model.model.layer[0].intermediate["dense"]
    dense.weight = nn.Parameter(dense.weight.to(torch.int8), requires_grad=False)
    with pytest.raises(ContinualError, match=r"is quantized \(torch.int8\)"):
        begun(model, Memory())


def gradients_of(method: GORP, steps: int) -> tuple[Learning, dict[str, list[Tensor]]]:
    """A first stage, and the gradient of every A and full-rank weight in each of its steps."""
    model, other = stack(), stack()
    learning = begun(model, Memory(), method)
    begun(other, Memory(), method)
    seen: dict[str, list[Tensor]] = {}
    adam = None
    for step in range(steps):
        x, gold = examples(seed=step)
        other.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(other(x), gold).backward()
        named = {**loras(other), **{FULL.format(n): dict(other.named_parameters())[FULL.format(n)] for n in (0, 1)}}
        for name, parameter in named.items():
            seen.setdefault(name, []).append(parameter.grad)
        adam = train(model, learning, 1, first=step, adam=adam)
        for key, value in values(model).items():
            dict(other.named_parameters())[key].data.copy_(value)
    return learning, seen


def same_space(basis: Tensor, wanted: Tensor) -> None:
    assert basis.shape == wanted.shape
    torch.testing.assert_close(basis @ basis.T, wanted @ wanted.T, atol=1e-3, rtol=0)


def test_the_basis_is_of_all_gradients_of_the_stage():
    """Those of the steps before the last count too; of a full-rank weight, their parts that move it."""
    learning, seen = gradients_of(GORP(gorp_energy=0.99, galore_rank=2, galore_update_proj_gap=2), 3)
    kept = learning.keep("c", []).tensors
    name = next(iter(seen))
    same_space(kept[f"basis.{name}"], extended(None, torch.cat(seen[name]), 0.99))
    one, two, three = seen[FULL.format(0)]
    turned = [torch.linalg.svd(g, full_matrices=False)[2][:2] for g in (one, one, three)]
    low = [g @ p.T @ p for g, p in zip((one, two, three), turned, strict=True)]
    same_space(kept[f"basis.{FULL.format(0)}"], extended(None, torch.cat(low), 0.99))


def test_the_papers_basis_is_of_adams_first_moment():
    learning, seen = gradients_of(GORP(gorp_space="moment", gorp_energy=0.9, galore_rank=2), 3)
    kept = learning.keep("c", []).tensors
    name = next(iter(seen))
    moment = torch.zeros_like(seen[name][0])
    for gradient in seen[name]:
        moment = BETA_1 * moment + (1 - BETA_1) * gradient
    values_ = torch.linalg.svd(moment, full_matrices=False)
    share = values_.S.square().cumsum(0) / values_.S.square().sum()
    count = int((share < 0.9).sum()) + 1  # the fewest that hold it; the authors' program leaves out the last of them
    same_space(kept[f"basis.{name}"], values_.Vh[:count].T)
    one, two, three = seen[FULL.format(0)]
    projector = torch.linalg.svd(one, full_matrices=False)[2][:2]
    low = (1 - BETA_1) * (BETA_1**2 * one + BETA_1 * two + three) @ projector.T @ projector
    same_space(kept[f"basis.{FULL.format(0)}"], extended(None, low, 0.9))


@pytest.mark.parametrize("space", GORP_SPACES)
def test_its_memory_does_not_grow_with_the_steps_nor_with_the_square_of_a_width(space: str):
    model = stack()
    learning = begun(model, Memory(), GORP(gorp_space=space, gorp_rows=4, galore_rank=2))
    sizes = []
    for step in range(0, 12, 4):
        train(model, learning, 4, first=step)
        sizes.append(
            sum(value.numel() for key, value in learning.state().items() if key.startswith(("space.", "sums.")))
        )
    trained = len(loras(model)) + 2
    assert max(sizes) <= trained * (2 * 4 * WIDE + 3)
    assert all(basis.shape[1] <= 8 for basis in learning.keep("c", []).tensors.values() if basis.shape[0] == WIDE)


def test_rows_that_stand_for_others_count_as_those_do():
    """What was projected off them before is held already, and what the sketch has weakened is made up for."""
    basis, rows = basis_of(3, 5), torch.randn(40, WIDE, generator=torch.Generator().manual_seed(4))
    rest = off(rows, basis)
    inside, outside = (rows - rest).square().sum().item(), rest.square().sum().item()
    same_space(extended(basis, rest, 0.8, (inside, outside, 0.0)), extended(basis, rows, 0.8))
    assert extended(basis, rest, 0.8, (1000 * inside, outside, 0.0)).shape == basis.shape
    _, values_, directions = torch.linalg.svd(rest, full_matrices=False)
    lost = values_[6].item() ** 2 / 2
    weaker = (values_.square() - lost).clamp(min=0).sqrt()[:, None] * directions
    for energy in (0.6, 0.7, 0.8):
        same_space(extended(basis, weaker, energy, (inside, outside, lost)), extended(basis, rows, energy))
