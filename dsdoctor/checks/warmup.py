"""What becomes of a DeepSpeed scheduler's warm-up, by the releases that are installed."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from packaging.version import InvalidVersion, Version

from dsdoctor.checks.context import JobContext, value_of
from dsdoctor.jobs import dsconfig
from dsdoctor.jobs.job import DeepSpeedConfig, StageSettings
from dsdoctor.report.model import Severity

# What transformers itself calls each of DeepSpeed's schedulers (its DeepSpeed guide, "Scheduler").
SAME_AS = {"WarmupLR": "constant_with_warmup", "WarmupDecayLR": "linear", "WarmupCosineLR": "cosine"}

AFTERWARDS = {
    "WarmupLR": "stays there",
    "WarmupDecayLR": "falls to 0 in a line",
    "WarmupCosineLR": "falls along a cosine",
}

DEFAULT_STEPS = 1000  # of all three, where the config names no number

REFUSES_ZERO = Version("0.19.3")  # DeepSpeed commit 54ebdec61: ValueError for warmup_num_steps <= 0
MAKES_IT_ONE = Version("5.18.0")  # transformers#48640: an "auto" is filled with 1 where the arguments say 0

# DeepSpeed makes 2 of 0 and of 1, and its curve begins with 0. From this version on (commit 85b7469ea) the optimizer
# is set to the curve's begin at once; before, the first step still has the optimizer's own rate.
STARTS_ON_THE_CURVE = Version("0.15.3")


def steps_asked_for(config: DeepSpeedConfig, stage: StageSettings, trainer: bool) -> int | None:
    """The warm-up steps that will be asked for, before any release makes something else of them; None: unknown."""
    written = dsconfig.get(config, "scheduler.params.warmup_num_steps")
    if isinstance(written, int) and not isinstance(written, bool):
        return written
    if written is None:
        return DEFAULT_STEPS
    if written != "auto" or not trainer:
        return None
    steps, ratio = _number(value_of(stage, "warmup_steps")), _number(value_of(stage, "warmup_ratio"))
    if steps is None or (0 < steps < 1):
        return None
    return int(steps) if steps >= 1 else None if ratio is None or ratio > 0 else 0


def effect_of(
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
        with suppress(InvalidVersion):
            result[host] = Version(text)
    return result


def _number(value: Any) -> float | None:
    """A number out of an argument; 0 (the default of both) when it is not given, None when it is no number."""
    try:
        return 0.0 if value is None else float(value)
    except (TypeError, ValueError):
        return None
