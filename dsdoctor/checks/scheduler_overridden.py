"""The DeepSpeed config's scheduler replaces the one that the arguments ask for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dsdoctor.checks.context import JobContext, value_of
from dsdoctor.checks.engine import check
from dsdoctor.checks.warmup import SAME_AS, effect_of, steps_asked_for
from dsdoctor.jobs import dsconfig
from dsdoctor.jobs.job import DeepSpeedConfig, StageSettings
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped


@check(severity=Severity.WARNING, since="0.1")
def scheduler_overridden(context: JobContext) -> Iterator[Finding | Skipped]:
    """The scheduler in the DeepSpeed config replaces --lr_scheduler_type, or cannot work with 0 warm-up steps.

    ## Why it matters
    Where the DeepSpeed config has a `scheduler`, transformers uses it and ignores --lr_scheduler_type. With
    `--warmup_steps 0` DeepSpeed 0.19.3 and newer stop with `ValueError: warmup_num_steps must be a positive integer`.
    Older ones, and newer ones under transformers 5.18, make two steps of none: the first two optimizer steps have a
    learning rate of 0 (before DeepSpeed 0.15.3 the second alone), then it is full. The log shows one 0.0, which looks
    like the whole trouble and is not.

    ## How to fix it
    Take the `scheduler` block out of the config: then the arguments hold. Or warm up for at least one step. Writing a
    number into warmup_num_steps does not help: transformers compares it with --warmup_steps.

    ## Source
    DeepSpeed, runtime/lr_schedules.py, releases 0.9.5 to 0.19.8 (the last one run with its engine); transformers,
    integrations/deepspeed.py, 4.57 to 5.23.
    """
    config = context.deepspeed
    kind = dsconfig.get(config, "scheduler.type") if config else None
    if config is None or not isinstance(kind, str) or kind not in SAME_AS:
        return
    for stage in context.stages:
        trainer = context.uses_trainer(stage)
        asked = value_of(stage, "lr_scheduler_type") if trainer else None
        steps = steps_asked_for(config, stage, trainer)
        effect, severity, hosts = effect_of(context, config, kind, steps)
        differs = asked is not None and asked != SAME_AS[kind]
        if not differs and severity is None:
            continue
        if differs:
            message = f"lr_scheduler_type: {asked} is replaced by {kind} of the DeepSpeed config; {effect}"
        else:
            message = f"{kind} of the DeepSpeed config is to warm up for {steps} steps; {effect}"
        yield scheduler_overridden.finding(
            message,
            severity=severity or Severity.WARNING,
            hosts=hosts,
            evidence=_evidence(context, config, stage),
            fix=_fixes(config, asked),
        )


def _evidence(context: JobContext, config: DeepSpeedConfig, stage: StageSettings) -> Iterator[Evidence]:
    for dotted in ("scheduler.type", "scheduler.params.warmup_num_steps"):
        value = dsconfig.get(config, dotted)
        if value is not None:
            yield Evidence(text=f"{dotted}: {value}", source=config.path, line=dsconfig.line_of(config, dotted))
    for name in ("lr_scheduler_type", "warmup_steps", "warmup_ratio", "learning_rate"):
        value = value_of(stage, name)
        if value is not None:
            yield context.cite(f"{name}: {value}")


def _fixes(config: DeepSpeedConfig, asked: Any) -> Iterator[Fix]:
    line = dsconfig.line_of(config, "scheduler")
    where = f"{config.path}, line {line}" if line else config.path
    kept = f"; lr_scheduler_type: {asked} then holds" if asked else "; lr_scheduler_type then holds"
    yield Fix(f"Take the scheduler block out of {where}{kept}")
    yield Fix("Keep it, and set warmup_steps: 1 or more and the lr_scheduler_type that it is")
