"""Values of a DeepSpeed config that DeepSpeed does not take."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dsdoctor.checks.config_keys import Basis, bases
from dsdoctor.checks.config_parts import ConfigParts, config_parts, parts_of
from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.nearest import nearest
from dsdoctor.checks.precision import config_evidence
from dsdoctor.jobs import dsconfig
from dsdoctor.jobs.job import DeepSpeedConfig
from dsdoctor.report.model import Finding, Fix, Severity

_STAGES = (0, 1, 2, 3)
_SENT_AS = ("fp16", "bf16", "bfp16", "fp32", "auto")  # bfp16: before 0.10
_FLAGS = frozenset({"0", "off", "f", "false", "n", "no", "1", "on", "t", "true", "y", "yes"})


@check(severity=Severity.ERROR, since="0.1")
def config_value_refused(context: JobContext) -> Iterator[Finding]:
    """A value in the DeepSpeed config is one that DeepSpeed refuses.

    ## Why it matters
    A stage that there is not, a bucket size with a fraction, a batch of no example, a word where true or false is
    wanted, a value in the place of a block, an offload device or an optimizer that DeepSpeed does not have: each stops
    every rank at the start, one at a time.

    ## How to fix it
    Write a value that is taken, or take the key out: then its default holds.

    ## Source
    DeepSpeed 0.19.8, runtime/config.py, runtime/zero/config.py and offload_config.py, runtime/engine.py
    (_is_supported_optimizer, _scheduler_from_config); pydantic's table of what a bool takes.
    """
    config = context.deepspeed
    if config is None:
        return
    trainer = any(context.uses_trainer(stage) for stage in context.stages)
    for number, basis in enumerate(bases(context)):
        of_zero = () if number else (*_of_zero(config, config_parts(), trainer), *_of_top(config, trainer))
        of_models = () if number else (*_of_blocks(config, basis), *_of_flags(config, basis))
        for key, wanted in (*of_zero, *of_models, *_of_types(config, parts_of(basis))):
            shown = config_evidence(config, key)
            yield config_value_refused.finding(
                f"{shown.text} in the DeepSpeed config is refused; {wanted} is wanted",
                hosts=basis.hosts if key.endswith(".type") else (),
                evidence=[shown],
                fix=[Fix(f"Write {wanted} in {config.path}")],
            )


def _of_zero(config: DeepSpeedConfig, table: ConfigParts, trainer: bool) -> Iterator[tuple[str, str]]:
    """The keys of zero_optimization with a value that is not taken, and what would be.

    A null for offload_optimizer is taken by DeepSpeed; accelerate looks into it where the config has no optimizer.
    """
    zero = config.value.get("zero_optimization")
    if not isinstance(zero, dict):
        return
    if not _is_stage(zero.get("stage", 0)):
        yield "zero_optimization.stage", "0, 1, 2 or 3"
    for key, least in table.whole.items():
        if key in zero and not _is_whole(zero[key], least):
            yield f"zero_optimization.{key}", f"a whole number from {least} on"
    for key in ("offload_optimizer", "offload_param"):
        block = zero.get(key)
        looked_into = trainer and key == "offload_optimizer" and "optimizer" not in config.value
        taken = block is None and (key not in zero or not looked_into)
        if not taken and not isinstance(block, dict):
            yield f"zero_optimization.{key}", 'a block as {"device": "cpu"}'
        elif block and block.get("device", "auto") not in (*table.devices, "auto"):
            yield f"zero_optimization.{key}.device", " or ".join(table.devices)


def _of_top(config: DeepSpeedConfig, trainer: bool) -> Iterator[tuple[str, str]]:
    """What is read as it stands: batch sizes from 1 on (under a Trainer another is config-disagrees'), a data type."""
    kind = config.value.get("communication_data_type")
    if kind is not None and kind not in _SENT_AS:
        yield "communication_data_type", '"fp16", "bf16" or "fp32"'
    for key in ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps"):
        value = config.value.get(key)
        if isinstance(value, int | float) and not trainer and (value < 1 or value != value // 1):
            yield key, "a whole number from 1 on"


def _of_blocks(config: DeepSpeedConfig, basis: Basis) -> Iterator[tuple[str, str]]:
    """A value where DeepSpeed wants a block. zero_optimization may be true or false, as it was once."""
    for block in (*basis.keys.refused, "optimizer", "scheduler"):
        value = dsconfig.get(config, block)
        old = block == "zero_optimization" and isinstance(value, bool)
        if "." not in block and value is not None and not isinstance(value, dict) and not old:
            yield block, "a block {...}"


def _of_flags(config: DeepSpeedConfig, basis: Basis) -> Iterator[tuple[str, str]]:
    """What is to be true or false, and is neither as pydantic reads it."""
    for block in basis.keys.refused:
        value = dsconfig.get(config, block)
        judged = isinstance(value, dict) and (basis.refuses(block) or not basis.releases)
        flags, optional = (kinds.get(block, ()) for kinds in (basis.keys.flags, basis.keys.optional_flags))
        for key, one in value.items() if judged else ():
            if (key in flags or (key in optional and one is not None)) and not _is_flag(one):
                yield f"{block}.{key}", "true or false"


def _is_flag(value: Any) -> bool:
    """As pydantic takes one. "auto" is filled in by transformers, or dropped by DeepSpeed."""
    if isinstance(value, str):
        return value == "auto" or value.lower() in _FLAGS
    return isinstance(value, int | float) and value in (0, 1)


def _of_types(config: DeepSpeedConfig, table: ConfigParts) -> Iterator[tuple[str, str]]:
    """Optimizer and scheduler, where DeepSpeed has none of that name."""
    for block in ("optimizer", "scheduler"):
        kind = dsconfig.get(config, f"{block}.type")
        if isinstance(kind, str) and not table.has(block, kind):
            own = table.schedulers if block == "scheduler" else ("AdamW", "Adam", "Lamb", "Lion", "Adagrad", "Muon")
            right = nearest(kind, own) or next((name for name in own if name.lower() == kind.lower()), None)
            yield f"{block}.type", right or f"one of {', '.join(own)}"


def _is_stage(value: Any) -> bool:
    return value == "auto" or value in (*_STAGES, *map(str, _STAGES))


def _is_whole(value: Any, least: int) -> bool:
    """As pydantic takes a whole number: also 5e8, and in quotes where nothing but digits stands there."""
    if value == "auto":
        return True  # filled in by transformers, or dropped by DeepSpeed
    if isinstance(value, str):
        return value.strip().isdecimal() and int(value) >= least
    return isinstance(value, int | float) and value == int(value) and value >= least
