"""Offload of the optimizer with an optimizer of the program's own."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.precision import config_evidence
from dsdoctor.jobs import dsconfig
from dsdoctor.report.model import Evidence, Finding, Fix, Severity

_DEVICE = "zero_optimization.offload_optimizer.device"


@check(severity=Severity.ERROR, since="0.1")
def offload_own_optimizer(context: JobContext) -> Iterator[Finding]:
    """The DeepSpeed config offloads the optimizer and names none, and the program brings one that is not for it.

    ## Why it matters
    DeepSpeed stops: "ZeRORuntimeException: You are using ZeRO-Offload with a client provided optimizer … which in most
    cases will yield poor performance".

    ## How to fix it
    Name an optimizer in the config, or make DeepSpeedCPUAdam in the program. With zero_force_ds_cpu_optimizer false it
    is taken, and slow.

    ## Source
    DeepSpeed 0.19.8, runtime/engine.py, run with such a program. Under transformers' Trainer this is let through.
    """
    config, program = context.deepspeed, context.program
    if config is None or program is None or "trainer" in program.marks or "own_optimizer" not in program.marks:
        return
    if dsconfig.get(config, _DEVICE) not in ("cpu", "nvme") or "optimizer" in config.value:
        return
    if config.value.get("zero_force_ds_cpu_optimizer") is False or "cpu_adam" in program.marks:
        return
    place = program.marks["own_optimizer"]
    yield offload_own_optimizer.finding(
        f"the optimizer is offloaded, and {program.path} hands DeepSpeed one of its own, which stops it; "
        "DeepSpeedCPUAdam or an optimizer in the config is wanted",
        evidence=[config_evidence(config, _DEVICE), Evidence(text=place.text, source=program.path, line=place.line)],
        fix=[
            Fix(f'Name it in {config.path}: "optimizer": {{"type": "AdamW", "params": {{"lr": …}}}}'),
            Fix("Make it in the program: deepspeed.ops.adam.DeepSpeedCPUAdam(model.parameters(), lr=…)"),
        ],
    )
