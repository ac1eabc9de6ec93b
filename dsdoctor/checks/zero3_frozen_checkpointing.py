"""ZeRO-3 with adapters and gradient checkpointing that is not re-entrant."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dsdoctor.checks.context import JobContext, is_true, plain, value_of
from dsdoctor.checks.engine import check
from dsdoctor.checks.installed import version
from dsdoctor.checks.precision import config_evidence
from dsdoctor.checks.zero import stage_of
from dsdoctor.jobs.job import StageSettings
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped

_FAILS_UP_TO = "0.19.2"  # the issue's; 0.19.8 keeps frozen parameters while a layer is computed again
_MENDED = "0.19.8"
_NOT_REENTRANT_FROM = "5.0.0"  # of transformers
_LORA = ("lora_rank", "lora_r", "lora_dim", "lora_alpha", "lora_target_modules", "lora_target")


@check(severity=Severity.ERROR, since="0.1")
def zero3_frozen_checkpointing(context: JobContext) -> Iterator[Finding | Skipped]:
    """ZeRO stage 3, LoRA, and gradient checkpointing with use_reentrant false, which is transformers 5's default.

    ## Why it matters
    When a layer is computed again, stage 3 has already let go of the frozen weights: "CheckpointError: Recomputed
    values for the following tensors have different metadata … saved shape [4096], recomputed shape [0]". Training all
    weights is not concerned, nor is re-entrant checkpointing.

    ## How to fix it
    Install DeepSpeed 0.19.8 or newer, or set use_reentrant to true, or use stage 2.

    ## Source
    huggingface/transformers#47254, deepspeedai/DeepSpeed#8148: seen with 0.19.2, mended in what 0.19.8 has. The
    default is in gradient_checkpointing_enable of transformers' modeling_utils.py: true in 4.35 to 4.57.6 (before, it
    is torch's, which is true as well), false in 5.0.0.
    """
    config = context.deepspeed
    if config is None or stage_of(config) != 3:
        return
    for stage in context.stages:
        said = _not_reentrant(context, stage)
        if said is None or not _checkpoints(context, stage) or not _adapts(context, stage):
            continue
        installed = {host: version(text) for host, text in context.versions("deepspeed").items()}
        mended = version(_MENDED)
        hosts = [host for host, found in installed.items() if found and mended and found < mended]
        if installed and not hosts:
            return
        limit = version(_FAILS_UP_TO)
        sure = any(found is not None and limit is not None and found <= limit for found in installed.values())
        yield zero3_frozen_checkpointing.finding(
            "ZeRO stage 3 lets go of LoRA's frozen weights before a layer is computed again, and checkpointing with "
            f"use_reentrant false stops there; DeepSpeed {_MENDED} keeps them",
            hosts=hosts,
            severity=Severity.ERROR if sure else Severity.WARNING,
            evidence=[said, config_evidence(config, "zero_optimization.stage")],
            fix=[
                Fix(f"Install DeepSpeed {_MENDED} or newer", (f"pip install 'deepspeed>={_MENDED}'",)),
                Fix('Set gradient_checkpointing_kwargs to {"use_reentrant": true}'),
                Fix("Set zero_optimization.stage to 2"),
            ],
        )
        return


def _not_reentrant(context: JobContext, stage: StageSettings) -> Evidence | None:
    """Where use_reentrant is false, in what the job says, or, where it says nothing, by transformers' own default."""
    for name, value in stage.args.items():
        text = str(value).replace(" ", "").replace("'", '"').lower()
        if plain(name) == "gradient_checkpointing_kwargs" and '"use_reentrant":false' in text:
            return context.cite(f"{name}: {value} (stage {stage.name})")
        if plain(name) == "use_reentrant" and not is_true(value):
            return context.cite(f"{name}: {value} (stage {stage.name})")
    said = _mark(context, "not_reentrant")
    if said is not None or _says_something(context, stage):
        return said
    changed = version(_NOT_REENTRANT_FROM)
    for host, text in context.versions("transformers").items():
        found = version(text)
        if found is not None and changed is not None and found >= changed:
            return Evidence(text=f"transformers {text} on {host} checkpoints with use_reentrant false unless told")
    return None


def _says_something(context: JobContext, stage: StageSettings) -> bool:
    """Whether arguments or program name use_reentrant, or call torch's checkpoint themselves, in whatever way."""
    given = any(plain(name) in ("gradient_checkpointing_kwargs", "use_reentrant") for name in stage.args)
    place = _mark(context, "checkpointing")
    return given or (place is not None and "use_reentrant" in place.text)


def _checkpoints(context: JobContext, stage: StageSettings) -> bool:
    value: Any = value_of(stage, "gradient_checkpointing")
    return is_true(value) if value is not None else _mark(context, "checkpointing") is not None


def _adapts(context: JobContext, stage: StageSettings) -> bool:
    given = any(plain(name) in _LORA for name in stage.args)
    return given or is_true(value_of(stage, "use_peft")) or _mark(context, "lora") is not None


def _mark(context: JobContext, name: str) -> Evidence | None:
    for program in context.job.programs.values():
        place = program.marks.get(name)
        if place is not None:
            return Evidence(text=place.text, source=program.path, line=place.line)
    return None
