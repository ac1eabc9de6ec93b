"""A DeepSpeed config without any batch size."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.report.model import Evidence, Finding, Fix, Severity

_ENOUGH = ("train_micro_batch_size_per_gpu", "train_batch_size")


@check(severity=Severity.ERROR, since="0.1")
def no_batch_size(context: JobContext) -> Iterator[Finding]:
    """The DeepSpeed config has neither train_micro_batch_size_per_gpu nor train_batch_size.

    ## Why it matters
    DeepSpeed stops: "Either train_batch_size or train_micro_batch_size_per_gpu needs to be provided". Under the
    Trainer, too: --per_device_train_batch_size is filled in where the config says "auto", and nowhere else.

    ## How to fix it
    Write "train_micro_batch_size_per_gpu": "auto" under the Trainer, and a number without one.

    ## Source
    DeepSpeed 0.19.8, runtime/config.py, _set_batch_related_parameters; run with transformers 5.23.
    """
    config = context.deepspeed
    if config is None or any(key in config.value for key in _ENOUGH):
        return
    trainer = any(context.uses_trainer(stage) for stage in context.stages)
    if not trainer and not any("engine" in program.marks for program in context.job.programs.values()):
        return  # who knows what a program puts into its config before it hands it over
    value = '"auto"' if trainer else "a number"
    yield no_batch_size.finding(
        f"{config.path} has no batch size; DeepSpeed wants {' or '.join(_ENOUGH)}",
        evidence=[Evidence(text=f"its keys: {', '.join(list(config.value)[:8]) or 'none'}", source=config.path)],
        fix=[Fix(f"Add {_ENOUGH[0]}: {value}")],
    )
