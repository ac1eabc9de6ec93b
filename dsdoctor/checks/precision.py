"""Which precision a job asks for, and where it says so: arguments, DeepSpeed config, the job's own `precision`."""

from __future__ import annotations

import json
from collections.abc import Iterator

from packaging.version import Version

from dsdoctor.checks.context import JobContext, is_true, plain
from dsdoctor.checks.installed import version
from dsdoctor.jobs import dsconfig
from dsdoctor.jobs.job import DeepSpeedConfig, StageSettings
from dsdoctor.report.model import Evidence

_ACCELERATE = Version("4.30.0")  # the first transformers whose Trainer starts DeepSpeed through accelerate


def config_evidence(config: DeepSpeedConfig, dotted: str) -> Evidence:
    """A key of the config, as it stands there, with file and line."""
    shown = json.dumps(dsconfig.get(config, dotted), ensure_ascii=False)
    return Evidence(text=f"{dotted}: {shown}", source=config.path, line=dsconfig.line_of(config, dotted))


def argument_flags(context: JobContext, stage: StageSettings) -> tuple[bool | None, bool | None]:
    """Whether a stage's arguments switch fp16 and bf16 on; None where the plan decides it (`precision: auto`).

    A `--precision fp16` or `--mixed_precision fp16` counts as `--fp16`; `${precision}` stands for the job's own.
    """
    by_word: dict[str, bool | None] = {"fp16": False, "bf16": False}
    for name, value in stage.args.items():
        if plain(name) in ("precision", "mixed_precision"):
            word = str(value).strip().lower()
            if word == "${precision}":
                word = context.job.job.precision or "auto"
            for precision in by_word:
                by_word[precision] = None if word == "auto" else word == precision
    fp16 = _flag(stage, ("fp16", "fp16_full_eval"), by_word["fp16"])
    return fp16, _flag(stage, ("bf16", "bf16_full_eval"), by_word["bf16"])


def _flag(stage: StageSettings, names: tuple[str, ...], otherwise: bool | None) -> bool | None:
    values = [value for name, value in stage.args.items() if plain(name) in names and value is not None]
    if any(is_true(value) for value in values):
        return True
    if any(isinstance(value, str) and "${" in value for value in values):
        return None
    return otherwise


def old_key_counts(context: JobContext, stage: StageSettings) -> bool:
    """Whether DeepSpeed gets to read the old key `bfloat16` where the config has no `bf16`.

    Under a Trainer of transformers 4.30 and newer it does not: accelerate puts `bf16` beside it, switched off.
    """
    if not context.uses_trainer(stage):
        return True
    versions = [version(text) for text in context.versions("transformers").values()]
    return bool(versions) and all(found is not None and found < _ACCELERATE for found in versions)


def runs_in(context: JobContext, stage: StageSettings) -> str | None:
    """The precision that a stage really computes in: "fp16", "bf16", "fp32"; None where that cannot be told.

    A DeepSpeed config decides where it says true or false; "auto" is filled in from the arguments, by a Trainer alone.
    """
    fp16, bf16 = argument_flags(context, stage)
    config = context.deepspeed
    if config is None:
        if not stage.complete:
            return None
        return "fp16" if fp16 else "bf16" if bf16 else "fp32" if fp16 is False and bf16 is False else None
    known = True
    blocks = [("fp16", fp16, "fp16"), ("bf16", bf16, "bf16")]
    if old_key_counts(context, stage):
        blocks.append(("bfloat16", None, "bf16"))
    for block, flag, name in blocks:
        there = dsconfig.get(config, f"{block}.enabled")
        if there == "auto" and block == "bfloat16":
            known = False  # by release: older ones take the text for true
        elif there == "auto":
            if flag:
                return name
            known = known and flag is False and stage.complete
        elif is_true(there):
            return name
    return "fp32" if known else None


def asks_for_bf16(context: JobContext) -> Iterator[Evidence]:
    """Every place where the job asks for bf16. Nothing for `precision: auto`: the plan takes what all GPUs have."""
    if context.job.job.precision == "bf16":
        yield context.cite("precision: bf16")
    for stage, name, value in context.argument("bf16", "bf16_full_eval"):
        if is_true(value):
            yield context.cite(f"{name}: {value} (stage {stage.name})")
    for stage, name, value in context.argument("torch_dtype", "dtype", "precision", "mixed_precision"):
        if str(value).strip().lower() in ("bf16", "bfloat16"):
            yield context.cite(f"{name}: {value} (stage {stage.name})")
    if (context.job.env.get("ACCELERATE_MIXED_PRECISION") or "").lower() == "bf16":
        yield context.cite("env: ACCELERATE_MIXED_PRECISION=bf16")
    config = context.deepspeed
    if config is None:
        return
    for block in ("bf16", "bfloat16"):
        if is_true(dsconfig.get(config, f"{block}.enabled")):
            yield config_evidence(config, f"{block}.enabled")
