"""A config that speaks of 16 bits, and arguments that switch none on: everything is computed in fp32."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.precision import config_evidence, runs_in
from dsdoctor.jobs import dsconfig
from dsdoctor.report.model import Finding, Fix, Severity, Skipped


@check(severity=Severity.INFO, since="0.1")
def trains_in_fp32(context: JobContext) -> Iterator[Finding | Skipped]:
    """The DeepSpeed config leaves fp16 and bf16 to the arguments, and these ask for neither: the job trains in fp32.

    ## Why it matters
    "auto" becomes false without --fp16 and --bf16. The log says "16-bits training: False", weights, gradients and
    activations take twice the memory, and cards with tensor cores work at a fraction of their speed. Who meant fp32
    (a T5 on cards without bf16) may leave it so.

    ## How to fix it
    Pass --bf16 true where every GPU has it (compute capability 8.0), else --fp16 true.

    ## Source
    transformers, integrations/deepspeed.py, 4.34 to 5.23: "auto" is filled in from the arguments.
    """
    config = context.deepspeed
    if config is None:
        return
    left = [key for key in ("fp16.enabled", "bf16.enabled") if dsconfig.get(config, key) == "auto"]
    stages = [stage for stage in context.stages if context.uses_trainer(stage) and runs_in(context, stage) == "fp32"]
    if not left or not stages or "bfloat16" in config.value:  # what that old key does is precision-disagrees' matter
        return
    all_of_it = len(stages) == len(context.stages)
    which = "the job" if all_of_it else f"stage {', '.join(stage.name for stage in stages[:4])}"
    yield trains_in_fp32.finding(
        f'{which} trains in fp32: {" and ".join(left)} {"are" if left[1:] else "is"} "auto" in the DeepSpeed config, '
        "and neither --fp16 nor --bf16 is given",
        evidence=[*(config_evidence(config, key) for key in left), context.cite("no precision among the arguments")],
        fix=[Fix("Pass --bf16 true where every GPU has bf16, else --fp16 true; or leave it, if fp32 is meant")],
    )
