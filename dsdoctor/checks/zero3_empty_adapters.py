"""ZeRO-3 with a program that makes adapters of no elements."""

from __future__ import annotations

import re
from collections.abc import Iterator

from dsdoctor.checks.context import JobContext, value_of
from dsdoctor.checks.engine import check
from dsdoctor.checks.precision import config_evidence
from dsdoctor.checks.zero import stage_of
from dsdoctor.report.model import Finding, Fix, Severity

# The programs of O-LoRA, N-LoRA and GORP by their names; all take lamda_1 or lora_modules.
_PROGRAM = re.compile(r"(?:^|/)run_(?:uie|N)_lora\w*\.py$")


@check(severity=Severity.ERROR, since="0.1")
def zero3_empty_adapters(context: JobContext) -> Iterator[Finding]:
    """ZeRO stage 3 with one of the continual-learning programs whose first stage makes LoRA matrices of no elements.

    ## Why it matters
    O-LoRA, N-LoRA and GORP keep the adapters of earlier tasks in `lora_A` and `lora_B` of rank r_sum, which is 0 in
    the first stage. Stage 3 cannot fetch a parameter without elements: "{'id': …, 'status': 'NOT_AVAILABLE', 'numel':
    0, … 'ds_shape': (64, 0) …}". Neither gradient checkpointing nor offload is to blame.

    ## How to fix it
    Use stage 2, with offload_optimizer where memory is short.

    ## Source
    Run with O-LoRA's program and DeepSpeed 0.19.8 on CPU.
    """
    config = context.deepspeed
    program = context.job.job.script or ""
    if config is None or stage_of(config) != 3 or not _PROGRAM.search(program):
        return
    told = [stage for stage in context.stages if value_of(stage, "do_train") or value_of(stage, "lamda_1") is not None]
    if not told:
        return
    yield zero3_empty_adapters.finding(
        f"{program} makes LoRA matrices without elements in its first stage, and ZeRO stage 3 cannot fetch these; "
        "stage 2 is wanted",
        evidence=[config_evidence(config, "zero_optimization.stage"), context.cite(f"script: {program}")],
        fix=[Fix("Use a config with zero_optimization.stage 2")],
    )
