"""The word "auto" in a DeepSpeed config that no Trainer fills in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.job_ranks import call_of
from dsdoctor.checks.precision import config_evidence
from dsdoctor.jobs.program import Program
from dsdoctor.report.model import Evidence, Finding, Fix, Severity

_SHOWN = 6


@check(severity=Severity.ERROR, since="0.1")
def auto_unresolved(context: JobContext) -> Iterator[Finding]:
    """The DeepSpeed config says "auto", and the program hands it to deepspeed.initialize itself.

    ## Why it matters
    "auto" is a word of transformers and accelerate, which put the arguments' values in its place. DeepSpeed takes
    batch sizes, clipping and the optimizer's numbers as they stand: '>' not supported between instances of 'str' and
    'int', or float() of a text. In zero_optimization, fp16 and bf16 it drops the key and has its default.

    ## How to fix it
    Write numbers, or build the training on the Trainer.

    ## Source
    DeepSpeed 0.19.8, runtime/config.py and config_utils.py; the program's own source: deepspeed.initialize is called
    in it, and no Trainer and no Accelerator is made.
    """
    config = context.deepspeed
    program = _program(context)
    if config is None or program is None:
        return
    found = [key for key in _autos(config.value) if not key.startswith(_DROPPED)]
    if not found:
        return
    place = program.marks["engine"]
    shown = ", ".join(found[:_SHOWN]) + (f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else "")
    yield auto_unresolved.finding(
        f'{shown} {"are" if found[1:] else "is"} "auto" in the DeepSpeed config, and {program.path} has no Trainer to '
        "fill it in; a value is wanted",
        evidence=[
            *(config_evidence(config, key) for key in found[:_SHOWN]),
            Evidence(text=place.text, source=program.path, line=place.line),
        ],
        fix=[Fix(f"Write the values into {config.path}")],
    )


# Blocks in which DeepSpeed itself drops an "auto" (DeepSpeedConfigModel).
_DROPPED = ("zero_optimization.", "fp16.", "bf16.", "bfloat16.")


def _program(context: JobContext) -> Program | None:
    """The program of the job's stages, where it is at hand and hands its config to DeepSpeed itself."""
    programs = context.job.programs
    for stage in context.stages:
        call = call_of(context, stage)
        name = call.program.text if call is not None and call.program is not None else context.job.job.script
        program = programs.get(name or "")
        if program is not None and "engine" in program.marks and "trainer" not in program.marks:
            return program
    return None


def _autos(value: Any, path: str = "") -> Iterator[str]:
    """The dotted keys that are "auto"."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _autos(inner, f"{path}.{key}" if path else str(key))
    elif value == "auto":
        yield path
