"""The word "auto" in a DeepSpeed config that nobody fills in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dsdoctor.checks.compared import PAIRS
from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.precision import config_evidence
from dsdoctor.jobs.job import DeepSpeedConfig
from dsdoctor.jobs.program import Program
from dsdoctor.report.model import Evidence, Finding, Fix, Severity

_SHOWN = 6

# Blocks in which DeepSpeed itself drops an "auto" (DeepSpeedConfigModel).
_DROPPED = ("zero_optimization.", "fp16.", "bf16.", "bfloat16.")

# What transformers and accelerate fill in. bfloat16 is precision-disagrees' matter.
_FILLED = frozenset(
    {
        *(pair.key for pair in PAIRS),
        *("train_batch_size", "fp16.enabled", "bf16.enabled", "bfloat16.enabled", "amp.enabled", "amp.opt_level"),
        *("scheduler.params.warmup_min_lr", "zero_optimization.reduce_bucket_size"),
        *("zero_optimization.stage3_prefetch_bucket_size", "zero_optimization.stage3_param_persistence_threshold"),
        *("zero_optimization.stage3_gather_16bit_weights_on_model_save", "steps_per_print"),
    }
)


@check(severity=Severity.ERROR, since="0.1")
def auto_unresolved(context: JobContext) -> Iterator[Finding]:
    """The DeepSpeed config says "auto" where nobody fills it in.

    ## Why it matters
    "auto" is a word of transformers and accelerate, which put the arguments' values in its place, for a fixed list of
    keys. Under the Trainer any other stops: "ValueError: `wall_clock_breakdown` not found in kwargs. Please specify
    `wall_clock_breakdown` without `auto`". A program that calls deepspeed.initialize itself has nobody to fill in any:
    DeepSpeed takes batch sizes, clipping and the optimizer's numbers as they stand, and stops at a text where it wants
    a number. In zero_optimization, fp16 and bf16 it drops the key and has its default.

    ## How to fix it
    Write a value.

    ## Source
    transformers 5.23, integrations/deepspeed.py; accelerate 1.15, DeepSpeedPlugin.fill_match; DeepSpeed 0.19.8,
    runtime/config.py and config_utils.py. All run with such configs.
    """
    config = context.deepspeed
    if config is None:
        return
    program = context.program
    if program is not None and "engine" in program.marks and "trainer" not in program.marks:
        yield from _alone(config, program)
    elif any(stage.complete and context.surely_trainer(stage) for stage in context.stages):
        found = [key for key in _autos(config.value) if key not in _FILLED]
        if found:
            shown = _listed(found)
            yield auto_unresolved.finding(
                f'{shown} {"are" if found[1:] else "is"} "auto" in the DeepSpeed config, which the Trainer does not '
                "fill in: it stops there; a value is wanted",
                evidence=[config_evidence(config, key) for key in found[:_SHOWN]],
                fix=[Fix(f"Write the value into {config.path}, or take the key out")],
            )


def _alone(config: DeepSpeedConfig, program: Program) -> Iterator[Finding]:
    """A program that hands its config to DeepSpeed itself."""
    found = [key for key in _autos(config.value) if not key.startswith(_DROPPED)]
    if not found:
        return
    place = program.marks["engine"]
    yield auto_unresolved.finding(
        f'{_listed(found)} {"are" if found[1:] else "is"} "auto" in the DeepSpeed config, and {program.path} has no '
        "Trainer to fill it in; a value is wanted",
        evidence=[
            *(config_evidence(config, key) for key in found[:_SHOWN]),
            Evidence(text=place.text, source=program.path, line=place.line),
        ],
        fix=[Fix(f"Write the values into {config.path}")],
    )


def _listed(keys: list[str]) -> str:
    return ", ".join(keys[:_SHOWN]) + (f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else "")


def _autos(value: Any, path: str = "") -> Iterator[str]:
    """The dotted keys that are "auto"."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _autos(inner, f"{path}.{key}" if path else str(key))
    elif value == "auto":
        yield path
