"""A DeepSpeed config without `zero_optimization`, which the Trainer does not take."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.report.model import Evidence, Finding, Fix, Severity


@check(severity=Severity.ERROR, since="0.1")
def zero_block_missing(context: JobContext) -> Iterator[Finding]:
    """The DeepSpeed config has no zero_optimization, and the program is built on the Trainer.

    ## Why it matters
    accelerate stops: "Please specify the ZeRO optimization config in the DeepSpeed config". DeepSpeed alone would
    take it for stage 0.

    ## How to fix it
    Write "zero_optimization": {"stage": 2}, or 0 for none of it.

    ## Source
    accelerate 0.20 to 1.15, utils/dataclasses.py, DeepSpeedPlugin; run with transformers 5.23.
    """
    config = context.deepspeed
    if config is None or "zero_optimization" in config.value:
        return
    if not any(context.uses_trainer(stage) for stage in context.stages):
        return
    yield zero_block_missing.finding(
        f"{config.path} has no zero_optimization, and accelerate, which the Trainer goes through, stops there",
        evidence=[Evidence(text=f"its keys: {', '.join(list(config.value)[:8]) or 'none'}", source=config.path)],
        fix=[Fix('Add "zero_optimization": {"stage": 2}, or {"stage": 0} where nothing is to be partitioned')],
    )
