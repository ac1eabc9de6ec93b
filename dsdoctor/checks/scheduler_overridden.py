"""The DeepSpeed config's scheduler replaces the one that the arguments ask for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from packaging.version import InvalidVersion, Version

from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.jobs import dsconfig
from dsdoctor.jobs.job import DeepSpeedConfig, StageSettings
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped

# What transformers itself calls each of DeepSpeed's schedulers (its DeepSpeed guide, "Scheduler").
SAME_AS = {"WarmupLR": "constant_with_warmup", "WarmupDecayLR": "linear", "WarmupCosineLR": "cosine"}

AFTERWARDS = {
    "WarmupLR": "stays there",
    "WarmupDecayLR": "falls to 0 in a line",
    "WarmupCosineLR": "falls along a cosine",
}

REFUSES_ZERO = Version("0.19.3")  # DeepSpeed commit 54ebdec61: ValueError for warmup_num_steps <= 0
MAKES_IT_ONE = Version("5.18.0")  # transformers#48640: an "auto" is filled with 1 where the arguments say 0

# DeepSpeed makes 2 of 0 and of 1, and its curve begins with 0. From this version on (commit 85b7469ea) the optimizer
# is set to the curve's begin at once; before, the first step still has the optimizer's own rate.
STARTS_ON_THE_CURVE = Version("0.15.3")


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
        asked = _argument(stage, "lr_scheduler_type") if trainer else None
        steps = _warmup_steps(config, stage, trainer)
        effect, severity, hosts = _effect(context, config, kind, steps)
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


def _warmup_steps(config: DeepSpeedConfig, stage: StageSettings, trainer: bool) -> int | None:
    """The warm-up steps that will be asked for, before any release makes something else of them; None: unknown."""
    written = dsconfig.get(config, "scheduler.params.warmup_num_steps")
    if isinstance(written, int) and not isinstance(written, bool):
        return written
    if written != "auto" or not trainer:
        return None
    steps, ratio = _number(_argument(stage, "warmup_steps")), _number(_argument(stage, "warmup_ratio"))
    if steps is None or (0 < steps < 1):
        return None
    return int(steps) if steps >= 1 else None if ratio is None or ratio > 0 else 0


def _effect(
    context: JobContext, config: DeepSpeedConfig, kind: str, steps: int | None
) -> tuple[str, Severity | None, list[str]]:
    """What comes of it in words; how bad it is in itself, None when it is not; the hosts where it is an error."""
    if steps is None or steps > 0:
        first = f"it warms up for {steps} steps" if steps else "it warms up first"
        return f"{first}, then the learning rate {AFTERWARDS[kind]}", None, []
    deepspeed, transformers = _versions(context, "deepspeed"), _versions(context, "transformers")
    is_auto = dsconfig.get(config, "scheduler.params.warmup_num_steps") == "auto"
    if not deepspeed:
        return (
            f"with {steps} warm-up steps DeepSpeed from 0.19.3 on stops with a ValueError; an older one, or one under "
            f"transformers from 5.18 on, has a learning rate of 0 at the start, then the full one, which "
            f"{AFTERWARDS[kind]}",
            Severity.WARNING,
            [],
        )
    fails = [
        host
        for host, version in deepspeed.items()
        if version >= REFUSES_ZERO and not (is_auto and transformers.get(host, Version("0")) >= MAKES_IT_ONE)
    ]
    if fails:
        newest = max(deepspeed[host] for host in fails)
        message = f"with {steps} warm-up steps DeepSpeed {newest} stops with a ValueError (a positive number is wanted)"
        return message, Severity.ERROR, fails
    oldest = min(deepspeed.values())
    which = "first two optimizer steps have" if oldest >= STARTS_ON_THE_CURVE else "second optimizer step has"
    message = (
        f"with {steps} warm-up steps the {which} a learning rate of 0 (DeepSpeed {oldest}), "
        f"then it is full and {AFTERWARDS[kind]}"
    )
    return message, None, []


def _versions(context: JobContext, package: str) -> dict[str, Version]:
    result = {}
    for host, text in context.versions(package).items():
        try:
            result[host] = Version(text)
        except InvalidVersion:
            continue
    return result


def _argument(stage: StageSettings, name: str) -> Any:
    return next((value for key, value in stage.args.items() if key.lstrip("-").replace("-", "_") == name), None)


def _number(value: Any) -> float | None:
    """A number out of an argument; 0 (the default of both) when it is not given, None when it is no number."""
    try:
        return 0.0 if value is None else float(value)
    except (TypeError, ValueError):
        return None


def _evidence(context: JobContext, config: DeepSpeedConfig, stage: StageSettings) -> Iterator[Evidence]:
    for dotted in ("scheduler.type", "scheduler.params.warmup_num_steps"):
        value = dsconfig.get(config, dotted)
        if value is not None:
            yield Evidence(text=f"{dotted}: {value}", source=config.path, line=dsconfig.line_of(config, dotted))
    for name in ("lr_scheduler_type", "warmup_steps", "warmup_ratio", "learning_rate"):
        value = _argument(stage, name)
        if value is not None:
            yield context.cite(f"{name}: {value}")


def _fixes(config: DeepSpeedConfig, asked: Any) -> Iterator[Fix]:
    line = dsconfig.line_of(config, "scheduler")
    kept = f"; lr_scheduler_type: {asked} then holds" if asked else "; lr_scheduler_type then holds"
    yield Fix(f"Take the scheduler block out of {config.path}, line {line}{kept}")
    yield Fix("Or keep it, and set warmup_steps: 1 or more and the lr_scheduler_type that it is")
