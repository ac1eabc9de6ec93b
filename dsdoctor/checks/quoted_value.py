"""Numbers and yes-or-no in quotes, in the places of a DeepSpeed config where nobody turns a text into a value."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from dsdoctor.checks.compared import PAIRS
from dsdoctor.checks.config_keys import bases
from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.precision import config_evidence
from dsdoctor.jobs import dsconfig
from dsdoctor.jobs.job import DeepSpeedConfig
from dsdoctor.report.model import Finding, Fix, Severity

# What DeepSpeed calculates with as it stands: these stop the start.
_COUNTED = (
    *("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps"),
    *("wall_clock_breakdown", "flops_profiler.enabled"),
)
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
_BLOCKS = ("", "optimizer.params", "scheduler.params", "activation_checkpointing", "flops_profiler", "aio")


@check(severity=Severity.ERROR, since="0.1")
def quoted_value(context: JobContext) -> Iterator[Finding]:
    """A number, or true or false, stands in quotes where it is taken for a text.

    ## Why it matters
    DeepSpeed reads some blocks with a schema, which makes a number of "3"; the others it takes as they stand. A batch
    size in quotes stops the start with a TypeError, "false" in quotes counts as true, as every text does. transformers
    and accelerate read the file themselves: to them stage "3" is not stage 3, so the model is loaded whole on every
    rank, and what is saved are the empty places of its weights.

    ## How to fix it
    Take the quotes away.

    ## Source
    DeepSpeed 0.19.8, runtime/config.py (get_scalar_param) and runtime/zero/config.py; accelerate 1.15,
    utils/deepspeed.py (is_zero3) and accelerator.py; tried with both.
    """
    config = context.deepspeed
    if config is None:
        return
    trainer = any(context.uses_trainer(stage) for stage in context.stages)
    for key, value in _texts(context, config):
        if trainer and any(pair.key == key for pair in PAIRS):
            continue  # compared as texts: config-disagrees says it
        told = _told(key, value)
        if told is not None:
            effect, severity = told
            yield quoted_value.finding(
                f'{key} is the text "{value}" in the DeepSpeed config: {effect}',
                severity=severity,
                evidence=[config_evidence(config, key)],
                fix=[Fix(f"Write {key.rpartition('.')[2]}: {value.lower() if _is_word(value) else value}, unquoted")],
            )
    stage = dsconfig.get(config, "zero_optimization.stage")
    if trainer and isinstance(stage, str) and stage.strip() in ("2", "3"):
        yield quoted_value.finding(
            f'zero_optimization.stage is the text "{stage}": DeepSpeed takes it for the number, transformers and '
            "accelerate do not, and load and save the model as without ZeRO",
            severity=Severity.ERROR if stage.strip() == "3" else Severity.WARNING,
            evidence=[config_evidence(config, "zero_optimization.stage")],
            fix=[Fix(f"Write stage: {stage.strip()}, unquoted")],
        )


def _texts(context: JobContext, config: DeepSpeedConfig) -> Iterator[tuple[str, str]]:
    """The keys with a number or a word for yes or no in quotes, in blocks that are read as they stand."""
    modelled = {block for basis in bases(context) for block in basis.keys.refused}
    for block in _BLOCKS:
        value: Any = dsconfig.get(config, block) if block else config.value
        for key, inner in value.items() if isinstance(value, dict) and block not in modelled else ():
            if isinstance(inner, str) and (_NUMBER.fullmatch(inner.strip()) or _is_word(inner)):
                yield (f"{block}.{key}" if block else key), inner


def _told(key: str, value: str) -> tuple[str, Severity] | None:
    """What comes of it, and how bad that is."""
    if key in _COUNTED or (key.startswith(("optimizer.params.", "scheduler.params.")) and not _is_word(value)):
        return "nothing makes a number of it, and calculating with it stops the start", Severity.ERROR
    if _is_word(value):
        said = "it counts as true, as every text does"
        return said, Severity.WARNING if value.strip().lower() == "false" else Severity.INFO
    return "nothing makes a number of it", Severity.WARNING


def _is_word(value: str) -> bool:
    return value.strip().lower() in ("true", "false")
