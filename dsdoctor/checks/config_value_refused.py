"""Values of a DeepSpeed config that DeepSpeed does not take."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dsdoctor.checks.config_keys import bases
from dsdoctor.checks.config_parts import ConfigParts, config_parts, parts_of
from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.nearest import nearest
from dsdoctor.checks.precision import config_evidence
from dsdoctor.jobs import dsconfig
from dsdoctor.jobs.job import DeepSpeedConfig
from dsdoctor.report.model import Finding, Fix, Severity

_STAGES = (0, 1, 2, 3)


@check(severity=Severity.ERROR, since="0.1")
def config_value_refused(context: JobContext) -> Iterator[Finding]:
    """A value in the DeepSpeed config is one that DeepSpeed refuses.

    ## Why it matters
    A stage that there is not, a bucket size with a fraction or in quotes, an offload device or an optimizer that
    DeepSpeed does not have: each stops every rank at the start, one at a time.

    ## How to fix it
    Write a value that is taken, or take the key out: then its default holds.

    ## Source
    DeepSpeed 0.19.8, runtime/zero/config.py and offload_config.py, runtime/engine.py (_is_supported_optimizer,
    _scheduler_from_config).
    """
    config = context.deepspeed
    if config is None:
        return
    trainer = any(context.uses_trainer(stage) for stage in context.stages)
    for number, basis in enumerate(bases(context)):
        of_zero = _of_zero(config, config_parts(), trainer) if not number else ()
        for key, wanted in (*of_zero, *_of_types(config, parts_of(basis))):
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
