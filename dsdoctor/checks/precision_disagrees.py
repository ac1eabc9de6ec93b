"""The job's arguments and its DeepSpeed config ask for different precisions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from dsdoctor.checks.context import JobContext, is_true, plain, value_of
from dsdoctor.checks.engine import check
from dsdoctor.checks.precision import argument_flags, config_evidence, old_key_counts
from dsdoctor.jobs import dsconfig
from dsdoctor.jobs.job import DeepSpeedConfig, StageSettings
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped


@dataclass(frozen=True)
class _Wrong:
    message: str
    keys: tuple[str, ...]  # of the config, for the evidence
    fix: tuple[str, ...]


@check(severity=Severity.ERROR, since="0.1")
def precision_disagrees(context: JobContext) -> Iterator[Finding | Skipped]:
    """The arguments of the job and its DeepSpeed config do not agree on fp16, bf16 or amp, or ask for two at once.

    ## Why it matters
    transformers compares the two before the first step and stops: `Please correct the following DeepSpeed config
    values that mismatch TrainingArguments values: - ds fp16.enabled=True vs hf fp16|fp16_full_eval=False`, one run at
    a time. What it does not compare goes wrong silently: the old key `bfloat16` is read by DeepSpeed alone. Up to
    transformers 4.29 the model is loaded in fp32 and trained in bf16; from 4.30 on accelerate puts `bf16` beside it,
    switched off, and all of it is fp32.

    ## How to fix it
    Write "auto" into the config and say the precision once, by --fp16 or --bf16.

    ## Source
    transformers, integrations/deepspeed.py, 4.34 to 5.23 (amp only up to 4.57); DeepSpeed,
    runtime/precision_config.py; accelerate's ValueError for `bfloat16: auto` was seen with 0.30 to 1.15, and
    that it switches bf16 off beside `bfloat16: true` with 1.15.
    """
    for stage in context.stages:
        for wrong in _wrongs(context, stage):
            config = context.deepspeed
            evidence = [config_evidence(config, key) for key in wrong.keys] if config else []
            yield precision_disagrees.finding(
                wrong.message,
                evidence=[*evidence, *_arguments(context, stage)],
                fix=[Fix(title) for title in wrong.fix],
            )


def _wrongs(context: JobContext, stage: StageSettings) -> Iterator[_Wrong]:
    fp16, bf16 = argument_flags(context, stage)
    if fp16 and bf16:
        yield _Wrong("the arguments ask for fp16 and for bf16; one is wanted", (), ("Leave one of them out",))
        return
    config = context.deepspeed
    if config is None:
        return
    trainer = context.uses_trainer(stage)
    old_key = "bfloat16" if "bfloat16" in config.value and "bf16" not in config.value else None
    in_fp16 = _resolved(dsconfig.get(config, "fp16.enabled"), fp16 if trainer else None)
    counts = old_key is None or old_key_counts(context, stage)
    there = dsconfig.get(config, f"{old_key or 'bf16'}.enabled")
    in_bf16 = counts and _resolved(there, None if old_key or not trainer else bf16)
    if in_fp16 and in_bf16:
        keys = ("fp16.enabled", f"{old_key or 'bf16'}.enabled")
        message = "the DeepSpeed config ends up with both fp16 and bf16 on, which DeepSpeed refuses; one is wanted"
        yield _Wrong(message, keys, ('Set both to "auto", the old key renamed to bf16, and pass --fp16 or --bf16',))
        return
    if not trainer:
        return
    for key, flag, name in (("fp16.enabled", fp16, "fp16"), ("bf16.enabled", bf16, "bf16")):
        yield from _compared(config, key, flag, f"--{name} is {'on' if flag else 'not given'}", f"--{name} true")
    if _is_below_5(context):
        yield from _amp(config, stage, bool(fp16))
    if old_key:
        yield from _old_key(there, fp16, bf16, counts)


def _compared(config: DeepSpeedConfig, key: str, wanted: Any, said: str, option: str) -> Iterator[_Wrong]:
    """A pair that transformers compares: only what is written out counts, "auto" is filled from the arguments."""
    there = dsconfig.get(config, key)
    if there in (None, "auto") or wanted is None or there == wanted:
        return
    shown = f'the text "{there}"' if isinstance(there, str) else str(there).lower()
    ways = [f'Set {key} to "auto" in {config.path}']
    if is_true(there) and isinstance(there, bool):
        ways.append(f"Pass {option}, when that is what was meant")
    yield _Wrong(f"{key} is {shown} in the DeepSpeed config, and {said}; transformers stops there", (key,), tuple(ways))


def _amp(config: DeepSpeedConfig, stage: StageSettings, fp16: bool) -> Iterator[_Wrong]:
    """What releases below 5 compare for apex as well."""
    by_apex = fp16 and str(value_of(stage, "fp16_backend")) == "apex"
    said = "--fp16 with --fp16_backend apex is " + ("on" if by_apex else "not given")
    yield from _compared(config, "amp.enabled", by_apex, said, "--fp16 true --fp16_backend apex")
    level = value_of(stage, "fp16_opt_level") or "O1"  # the default of transformers.TrainingArguments
    yield from _compared(config, "amp.opt_level", level, f"fp16_opt_level is {level}", "--fp16_opt_level")


def _old_key(there: Any, fp16: bool | None, bf16: bool | None, counts: bool) -> Iterator[_Wrong]:
    """What becomes of `bfloat16`, which DeepSpeed takes for bf16 and transformers does not look at."""
    fix = ('Rename bfloat16 to bf16 in the config, and write true or "auto" without quotes around true',)
    if there == "auto":
        message = 'bfloat16.enabled is "auto" in the DeepSpeed config, and nobody fills it in: only bf16 is looked at'
        yield _Wrong(message, ("bfloat16.enabled",), fix)
    elif is_true(there) and bf16 is False:
        message = (
            "DeepSpeed trains in bf16 by the old key bfloat16, which transformers does not look at: "
            "without --bf16 it loads the model in fp32"
        )
        if not counts:
            message = (
                "the old key bfloat16 does nothing: from transformers 4.30 on accelerate puts bf16 beside it, switched "
                f"off, and the job trains in {'fp16' if fp16 else 'fp32'}"
            )
        yield _Wrong(message, ("bfloat16.enabled",), fix)


def _resolved(there: Any, flag: bool | None) -> bool:
    """Whether a precision is on in the end: as written, or filled in from the arguments."""
    return bool(flag) if there == "auto" else is_true(there)


def _is_below_5(context: JobContext) -> bool:
    versions = context.versions("transformers")
    return any(version.split(".")[0] in ("3", "4") for version in versions.values())


def _arguments(context: JobContext, stage: StageSettings) -> Iterator[Evidence]:
    names = ("fp16", "bf16", "fp16_full_eval", "bf16_full_eval", "fp16_backend", "precision", "mixed_precision")
    given = [f"{name}: {value}" for name, value in stage.args.items() if plain(name) in names]
    precision = context.job.job.precision
    if precision:
        given.append(f"precision: {precision}")
    yield context.cite(", ".join(given) if given else "no precision among the arguments")
