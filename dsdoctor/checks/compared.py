"""What transformers compares between its arguments and a DeepSpeed config, precision apart, and how it gets each."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from packaging.version import InvalidVersion, Version

from dsdoctor.checks.context import JobContext, value_of
from dsdoctor.jobs.job import StageSettings
from dsdoctor.jobs.unknown import Unknown

# transformers#48640: an argument that says 0 warm-up steps is compared as 1.
_AT_LEAST_ONE = Version("5.18.0")


@dataclass(frozen=True)
class Pair:
    """A key of the config, the arguments that it is compared with, and their defaults in TrainingArguments."""

    key: str
    arguments: tuple[str, ...]
    defaults: tuple[Any, ...]


@dataclass(frozen=True)
class Wanted:
    """The value that transformers wants in the config, and in words where it has it from."""

    value: Any
    said: str


PAIRS = (
    Pair("train_micro_batch_size_per_gpu", ("per_device_train_batch_size",), (8,)),
    Pair("gradient_accumulation_steps", ("gradient_accumulation_steps",), (1,)),
    Pair("gradient_clipping", ("max_grad_norm",), (1.0,)),
    Pair("optimizer.params.lr", ("learning_rate",), (5e-5,)),
    Pair("optimizer.params.betas", ("adam_beta1", "adam_beta2"), (0.9, 0.999)),
    Pair("optimizer.params.eps", ("adam_epsilon",), (1e-8,)),
    Pair("optimizer.params.weight_decay", ("weight_decay",), (0.0,)),
    Pair("scheduler.params.warmup_max_lr", ("learning_rate",), (5e-5,)),
    Pair("scheduler.params.warmup_num_steps", ("warmup_steps", "warmup_ratio"), (0, 0.0)),
    Pair("scheduler.params.total_num_steps", ("max_steps",), (-1,)),
)


def wanted_by_arguments(context: JobContext, stage: StageSettings, pair: Pair) -> Wanted | None:
    """What the arguments make of a pair; None where that cannot be told from them."""
    values: list[Any] = []
    for name, default in zip(pair.arguments, pair.defaults, strict=True):
        value = value_of(stage, name)
        number = default if value is None else _number(value)
        if number is None:
            return None
        values.append(number)
    if pair.key.endswith("warmup_num_steps"):
        return _warm_up(context, stage, *values)
    if pair.key.endswith("total_num_steps"):
        return Wanted(values[0], f"--max_steps is {values[0]}") if values[0] > 0 else None
    if pair.key == "train_micro_batch_size_per_gpu" and value_of(stage, "auto_find_batch_size") not in (None, False):
        return None
    said = [
        f"--{name} is {value}" if value_of(stage, name) is not None else f"--{name} is not given and {value} by default"
        for name, value in zip(pair.arguments, values, strict=True)
    ]
    return Wanted(values if len(values) > 1 else values[0], " and ".join(said))


def _warm_up(context: JobContext, stage: StageSettings, steps: float, ratio: float) -> Wanted | None:
    """The warm-up steps: as many as are asked for; a share of the steps is known only when the data is."""
    if 0 < steps < 1 or (steps == 0 and ratio > 0):
        return None
    if steps >= 1:
        return Wanted(int(steps), f"--warmup_steps is {int(steps)}")
    least = {_least(text) for text in context.versions("transformers").values()}
    if len(least) != 1:
        return None
    value = least.pop()
    given = "is 0" if value_of(stage, "warmup_steps") is not None else "is not given and 0 by default"
    return Wanted(value, f"--warmup_steps {given}" + (", which counts as 1" if value else ""))


def _least(text: str) -> int:
    """What a release of transformers makes of no warm-up."""
    with suppress(InvalidVersion):
        return 1 if Version(text) >= _AT_LEAST_ONE else 0
    return 0


def _number(value: Any) -> int | float | None:
    if isinstance(value, bool | Unknown):
        return None
    if isinstance(value, str):
        try:
            return int(value) if value.strip().lstrip("-").isdecimal() else float(value)
        except ValueError:
            return None
    return value if isinstance(value, int | float) else None
