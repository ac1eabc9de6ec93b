"""What would make a training fit, in order of what it costs: first what changes no number, last what changes the work.

Every way comes with the figure that it would have, alone or on top of those before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from dsdoctor.jobs.forecast.memory import MemoryForecast, forecast
from dsdoctor.jobs.forecast.shape import ModelShape
from dsdoctor.jobs.forecast.training import Lora, Precision, Training

_BUCKET = 50_000_000  # elements: 100 MB in 16 bits, far beyond what a link needs to be busy


@dataclass(frozen=True)
class Remedy:
    """A change, what it costs, and the memory that the training needs with it.

    `steps`: what a row of changes leads through, each with its figure on top of those before it; empty for one.
    """

    title: str
    cost: str
    training: Training
    memory: MemoryForecast
    steps: tuple[tuple[str, MemoryForecast], ...] = ()


def remedies(
    shape: ModelShape, training: Training, limit: int, parameters: int | None = None, ram: int | None = None
) -> tuple[Remedy, ...]:
    """The changes that bring the forecast's most below `limit` bytes, each alone; where none does, the least row.

    A row adds changes in order until it fits, and leaves out what turns out not to be needed. Changes that a rank's
    `ram` bytes on its host do not hold are no way out. Where nothing helps there is none.
    """

    def fits(changed: Training) -> bool:
        memory = forecast(shape, changed, parameters)
        return memory.most <= limit and (ram is None or memory.ram <= ram)

    def remedy(title: str, cost: str, changed: Training) -> Remedy:
        return Remedy(title, cost, changed, forecast(shape, changed, parameters))

    alone = tuple(change for change in _changes(training) if fits(change[2]))
    if alone:
        return tuple(remedy(*change) for change in alone)
    row = _row(shape, training, parameters, fits)
    if not row:
        return ()
    for title in row[:-1]:
        fewer = [other for other in row if other != title]
        changed = _applied(training, fewer)
        if changed is not None and fits(changed):
            row = fewer
    costs = [cost for cost in (_cost(training, row, title) for title in row) if cost != "none"]
    now, steps = training, []
    for title in row:
        now = next(changed for name, _, changed in _changes(now) if name == title)
        steps.append((title, forecast(shape, now, parameters)))
    whole = remedy(" + ".join(row), "; ".join(costs), now)
    return (replace(whole, steps=tuple(steps) if len(steps) > 1 else ()),)


def _row(shape: ModelShape, training: Training, parameters: int | None, fits: Callable[[Training], bool]) -> list[str]:
    """The titles of changes, one after the other, until the training fits; empty where it never does."""
    titles: list[str] = []
    useless: set[str] = set()  # so far: what saves nothing now may after another change
    now = training
    while True:
        following = next((change for change in _changes(now) if change[0] not in {*titles, *useless}), None)
        if following is None:
            return []
        title, _, changed = following
        before, after = (forecast(shape, each, parameters) for each in (now, changed))
        if after.most >= before.most and after.ram >= before.ram:
            useless.add(title)
            continue
        titles.append(title)
        useless.clear()
        now = changed
        if fits(now):
            return titles


def _applied(training: Training, titles: list[str]) -> Training | None:
    """The training with these changes made in order, None where one of them needs another."""
    for title in titles:
        changed = next((change for name, _, change in _changes(training) if name == title), None)
        if changed is None:
            return None
        training = changed
    return training


def _cost(training: Training, titles: list[str], wanted: str) -> str:
    for title in titles:
        _, cost, training = next(change for change in _changes(training) if change[0] == title)
        if title == wanted:
            return cost
    return "none"


def _changes(training: Training) -> Iterator[tuple[str, str, Training]]:
    """Least loss first: the same numbers slower, the same numbers elsewhere, other numbers, other work."""
    zero = training.zero
    if not training.checkpointing and training.length is not None:
        yield "gradient_checkpointing: true", "a third more computing", replace(training, checkpointing=True)
    if training.micro_batch > 1:
        steps = training.accumulation * training.micro_batch
        smaller = replace(training, micro_batch=1, accumulation=steps)
        words = f"per_device_train_batch_size: 1, gradient_accumulation_steps: {steps}"
        yield words, "the same global batch, slower", smaller
    if training.eval_batch > 1:
        words = "per_device_eval_batch_size: 1"
        yield words, "slower evaluation, the same results", replace(training, eval_batch=1)
    if training.engine == "deepspeed" and zero.stage >= 1 and (zero.reduce_bucket or 0) > _BUCKET:
        small = replace(zero, reduce_bucket=_BUCKET)
        yield f"reduce_bucket_size: {_BUCKET}", "more and smaller messages", replace(training, zero=small)
    if training.foreach:
        yield "optim: adamw_torch_fused", "none", replace(training, foreach=False)
    if training.precision == "fp32":
        half: Precision = "mixed" if training.engine == "deepspeed" else "autocast"
        yield "16 bits (bf16: true, or fp16)", "less exact; fp16 not for T5", replace(training, precision=half)
    if training.attention == "eager":
        yield "attn_implementation: sdpa", "none", replace(training, attention="sdpa")
    if training.engine == "deepspeed" and training.ranks > 1 and zero.stage < 2:
        yield "ZeRO-2", "more communication", replace(training, zero=replace(zero, stage=2))
    if training.engine == "ddp":
        sharded = replace(zero, stage=2)
        words = "DeepSpeed with ZeRO-2"
        kind: Precision = "mixed" if training.precision == "autocast" else training.precision
        yield words, "more communication", replace(training, engine="deepspeed", zero=sharded, precision=kind)
    if training.engine == "deepspeed" and training.ranks > 1 and zero.stage < 3:
        yield "ZeRO-3", "weights go over the links in every pass", replace(training, zero=replace(zero, stage=3))
    if training.engine == "deepspeed" and zero.stage >= 1 and zero.optimizer_on == "gpu":
        moved = replace(zero, optimizer_on="cpu")
        yield "offload_optimizer: cpu", "slower steps, and it needs the host's memory", replace(training, zero=moved)
    if training.engine == "deepspeed" and zero.stage == 3 and zero.parameters_on == "gpu":
        moved = replace(zero, parameters_on="cpu")
        yield "offload_param: cpu", "much slower", replace(training, zero=moved)
    if training.optimizer == "adamw" and training.lora is None:
        yield "optim: adamw_bnb_8bit", "rounded optimizer states", replace(training, optimizer="adamw_8bit")
    if training.lora is None:
        yield "LoRA", "trains other parameters: another result", replace(training, lora=Lora())
    elif training.base_bits is None and training.engine != "deepspeed":
        yield "load_in_4bit: true (QLoRA)", "rounded weights", replace(training, base_bits=4)
