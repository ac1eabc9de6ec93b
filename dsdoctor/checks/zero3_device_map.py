"""ZeRO-3 with a model that is loaded by device_map or low_cpu_mem_usage."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dsdoctor.checks.context import JobContext, is_true, plain
from dsdoctor.checks.engine import check
from dsdoctor.checks.precision import config_evidence
from dsdoctor.checks.zero import stage_of
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped

_NOTHING = ("", "none", "null", "false")


@check(severity=Severity.ERROR, since="0.1")
def zero3_device_map(context: JobContext) -> Iterator[Finding | Skipped]:
    """The job uses ZeRO stage 3, and its model is loaded with a device_map or with low_cpu_mem_usage.

    ## Why it matters
    Stage 3 spreads the weights over the ranks while they are loaded; a device_map wants to place them itself.
    transformers stops: "DeepSpeed Zero-3 is not compatible with passing a `device_map`", in 4.x also for
    low_cpu_mem_usage=True. Weights in 4 or 8 bits are loaded with a device_map.

    ## How to fix it
    Leave both out when the DeepSpeed config says stage 3, or use stage 2.

    ## Source
    transformers, integrations/accelerate.py of 5.23, modeling_utils.py of 4.34 to 4.50.
    """
    config = context.deepspeed
    if config is None or stage_of(config) != 3:
        return
    stage = config_evidence(config, "zero_optimization.stage")
    for name, found in (("device_map", _device_map(context)), ("low_cpu_mem_usage", _low_memory(context))):
        for evidence in found[:1]:
            yield zero3_device_map.finding(
                f"{name} and ZeRO stage 3 do not go together: transformers stops when it loads the model"
                + (" (4.x; from 5.0 on it is ignored)" if name == "low_cpu_mem_usage" else ""),
                severity=_severity(context, name),
                evidence=[evidence, stage],
                fix=[Fix(f"Leave {name} out with this config"), Fix("Set zero_optimization.stage to 2")],
            )


def _device_map(context: JobContext) -> list[Evidence]:
    return [*_arguments(context, "device_map"), *_marks(context, "device_map")]


def _low_memory(context: JobContext) -> list[Evidence]:
    return [*_arguments(context, "low_cpu_mem_usage"), *_marks(context, "low_cpu_mem_usage")]


def _arguments(context: JobContext, name: str) -> Iterator[Evidence]:
    for stage in context.stages:
        for key, value in stage.args.items():
            if plain(key) == name and _asks(name, value):
                yield context.cite(f"{key}: {value} (stage {stage.name})")


def _asks(name: str, value: Any) -> bool:
    if name == "low_cpu_mem_usage":
        return is_true(value)
    return value is not None and str(value).strip().lower() not in _NOTHING


def _marks(context: JobContext, name: str) -> Iterator[Evidence]:
    for program in context.job.programs.values():
        place = program.marks.get(name)
        if place is not None:
            yield Evidence(text=place.text, source=program.path, line=place.line)


def _severity(context: JobContext, name: str) -> Severity:
    """In a program's source the device_map may stand in a branch; low_cpu_mem_usage hurts in 4.x alone."""
    versions = context.versions("transformers").values()
    if name == "low_cpu_mem_usage":
        older = any(version.startswith(("3.", "4.")) for version in versions)
        return Severity.ERROR if older else Severity.WARNING if not versions else Severity.INFO
    return Severity.ERROR if any(_arguments(context, name)) else Severity.WARNING
