"""Which changes of a DeepSpeed config are certain: what is right follows from the arguments, or there is one way only.

A change is proposed here and tried by :mod:`dsdoctor.checks.mending`, which keeps it where less is wrong afterwards.
What could have been meant in two ways - a value against a default that nobody wrote, a global batch - is not proposed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from dsdoctor.checks.compared import PAIRS
from dsdoctor.checks.config_keys import bases
from dsdoctor.checks.config_parts import config_parts
from dsdoctor.checks.context import JobContext, value_of
from dsdoctor.checks.nearest import distance
from dsdoctor.checks.warmup import SAME_AS, steps_asked_for
from dsdoctor.cluster import Cluster
from dsdoctor.jobs import dsconfig
from dsdoctor.jobs.edits import Edit
from dsdoctor.jobs.forecast.outlook import UnknownJobError, outlooks
from dsdoctor.jobs.job import DeepSpeedConfig, StageSettings

_PRECISION = ("fp16", "bf16", "fp16_full_eval", "bf16_full_eval", "precision", "mixed_precision")
_LONG = 10  # letters from which on two slips leave no doubt


@dataclass(frozen=True)
class Proposal:
    """Changes that belong together, and why they are certain."""

    edits: tuple[Edit, ...]
    because: str


def proposals(contexts: Sequence[JobContext], config: DeepSpeedConfig) -> Iterator[Proposal]:
    """What may be changed in the config of these parts of a job, the surest first."""
    yield from _misspelt(contexts, config)
    yield from _precision(contexts, config)
    yield from _contradicted(contexts, config)
    yield from _no_warm_up(contexts, config)
    yield from _texts(config.value)
    yield from _fractions(config)
    yield from _prefetched(contexts, config)


def _misspelt(contexts: Sequence[JobContext], config: DeepSpeedConfig) -> Iterator[Proposal]:
    """Keys that are one known key with a slip or two in it, where that key is not there as well."""
    table, parts = bases(contexts[0])[0].keys, config_parts()
    blocks = {**table.ignored, **table.refused, "": table.ignored[""]}
    for block in ("optimizer", "scheduler"):
        blocks[f"{block}.params"] = parts.parameters(block, dsconfig.get(config, f"{block}.type"))
    for block, known in blocks.items():
        there = dsconfig.get(config, block) if block else config.value
        for key in there if isinstance(there, dict) and known else ():
            if key in known:
                continue
            limit = 2 if len(key) > _LONG else 1
            close = [name for name in known if distance(key, name) <= limit]
            if len(close) == 1 and close[0] not in there and len(key) > 3:
                path = (*block.split("."), key) if block else (key,)
                because = f"{close[0]} is the only key of DeepSpeed that is spelt nearly so"
                yield Proposal((Edit(path, "rename", close[0]),), because)


def _precision(contexts: Sequence[JobContext], config: DeepSpeedConfig) -> Iterator[Proposal]:
    """The precision that the arguments give, by the keys that transformers looks at."""
    if not all(_says(stage, *_PRECISION) and one.uses_trainer(stage) for one in contexts for stage in one.stages):
        return
    because = "the arguments say the precision, and auto takes it from them"
    edits = []
    for block in ("fp16", "bf16"):
        if dsconfig.get(config, f"{block}.enabled") not in (None, "auto"):
            edits.append(Edit((block, "enabled"), "set", "auto"))
    old = dsconfig.get(config, "bfloat16.enabled")
    if old is not None and "bf16" not in config.value:
        edits.append(Edit(("bfloat16",), "rename", "bf16"))
        edits += [Edit(("bfloat16", "enabled"), "set", "auto")] if old != "auto" else []
        because += "; bfloat16 is the old name of bf16, which transformers does not look at"
    if edits:
        yield Proposal(tuple(edits), because)


def _contradicted(contexts: Sequence[JobContext], config: DeepSpeedConfig) -> Iterator[Proposal]:
    """Values that an argument which was really given contradicts; under the Trainer the argument is what holds."""
    for pair in PAIRS:
        if dsconfig.get(config, pair.key) in (None, "auto"):
            continue
        if all(_says(stage, *pair.arguments) and one.uses_trainer(stage) for one in contexts for stage in one.stages):
            because = f"--{pair.arguments[0]} is given, and auto takes it from there"
            yield Proposal((Edit(tuple(pair.key.split(".")), "set", "auto"),), because)


def _no_warm_up(contexts: Sequence[JobContext], config: DeepSpeedConfig) -> Iterator[Proposal]:
    """A scheduler of DeepSpeed that is to warm up for no step, where the arguments name the one that is wanted."""
    if dsconfig.get(config, "scheduler.type") not in SAME_AS:
        return
    for one in contexts:
        for stage in one.stages:
            trainer = one.uses_trainer(stage)
            if not trainer or steps_asked_for(config, stage, trainer) != 0 or not _says(stage, "lr_scheduler_type"):
                return
    because = "it cannot do without a warm-up, and --lr_scheduler_type, which it replaces, can"
    yield Proposal((Edit(("scheduler",), "remove"),), because)


def _texts(value: Any, path: tuple[str, ...] = ()) -> Iterator[Proposal]:
    """true, false and whole numbers in quotes."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _texts(inner, (*path, key))
    elif isinstance(value, str) and (meant := _meant(value)) is not None:
        yield Proposal((Edit(path, "set", meant),), f"{value} in quotes is a text, and no value of its kind")


def _meant(text: str) -> bool | int | None:
    word = text.strip().lower()
    if word in ("true", "false"):
        return word == "true"
    try:
        number = float(word)
    except ValueError:
        return None
    return int(number) if number == number // 1 else None


def _fractions(config: DeepSpeedConfig) -> Iterator[Proposal]:
    """Bucket sizes with a fraction."""
    for key in config_parts().whole:
        there = dsconfig.get(config, f"zero_optimization.{key}")
        if isinstance(there, float) and there != there // 1:
            because = "a count of elements has no fraction"
            yield Proposal((Edit(("zero_optimization", key), "set", int(there)),), because)


def _prefetched(contexts: Sequence[JobContext], config: DeepSpeedConfig) -> Iterator[Proposal]:
    """What transformers below 4.45 makes a fraction of, as a whole number: 0.9 x hidden_size²."""
    key = "stage3_prefetch_bucket_size"
    if dsconfig.get(config, f"zero_optimization.{key}") != "auto":
        return
    sizes = set()
    for one in contexts:
        try:
            sizes |= {outlook.shape.hidden for outlook in outlooks(one.job, one.cluster or Cluster(()))}
        except UnknownJobError:
            return
    if len(sizes) == 1:
        hidden = sizes.pop()
        because = f"0.9 x {hidden} x {hidden}, which older releases of transformers leave with its fraction"
        yield Proposal((Edit(("zero_optimization", key), "set", int(0.9 * hidden * hidden)),), because)


def _says(stage: StageSettings, *names: str) -> bool:
    """Whether one of these arguments is really given."""
    return any(value_of(stage, name) is not None for name in names)
