"""The job's arguments and its DeepSpeed config give different numbers for one thing."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.compared import PAIRS, Pair, wanted_by_arguments
from dsdoctor.checks.context import JobContext, plain
from dsdoctor.checks.engine import check
from dsdoctor.checks.job_ranks import ranks_of
from dsdoctor.checks.precision import config_evidence
from dsdoctor.jobs import dsconfig
from dsdoctor.jobs.job import DeepSpeedConfig, StageSettings
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped


@check(severity=Severity.ERROR, since="0.1")
def config_disagrees(context: JobContext) -> Iterator[Finding | Skipped]:
    """A number in the DeepSpeed config is another one than the argument for the same thing.

    ## Why it matters
    transformers compares batch sizes, accumulation, clipping, the optimizer's and the scheduler's numbers before the
    first step, and stops: "Please correct the following DeepSpeed config values that mismatch TrainingArguments
    values". An argument that is not given counts with its default (a batch of 8, a learning rate of 5e-5), and
    train_batch_size is ranks x batch x accumulation: a config that is right on eight cards stops on two.

    ## How to fix it
    Write "auto" into the config, and the number once, among the arguments.

    ## Source
    transformers, integrations/deepspeed.py, 4.34 to 5.23: trainer_config_process and trainer_config_finalize. What is
    compared of fp16, bf16 and amp is precision-disagrees.
    """
    config = context.deepspeed
    if config is None:
        return
    for stage in context.stages:
        if not context.uses_trainer(stage):
            continue
        for pair in PAIRS:
            yield from _compared(context, config, stage, pair)
        yield from _global_batch(context, config, stage)
        yield from _accumulation_left_out(context, config, stage)


def _compared(context: JobContext, config: DeepSpeedConfig, stage: StageSettings, pair: Pair) -> Iterator[Finding]:
    there = dsconfig.get(config, pair.key)
    if there in (None, "auto") or any(argument in _own(context) for argument in pair.arguments):
        return
    wanted = wanted_by_arguments(context, stage, pair)
    if wanted is None or there == wanted.value:
        return
    shown = f'the text "{there}"' if isinstance(there, str) else there
    yield config_disagrees.finding(
        f"{pair.key} is {shown} in the DeepSpeed config, and {wanted.said}; transformers stops there",
        evidence=[config_evidence(config, pair.key), *_given(context, stage, pair.arguments)],
        fix=[
            Fix(f'Set {pair.key} to "auto" in {config.path}'),
            *([Fix(f"Pass --{pair.arguments[0]} {there}")] if _can_be_passed(there, pair) else []),
        ],
    )


def _can_be_passed(there: object, pair: Pair) -> bool:
    return len(pair.arguments) == 1 and isinstance(there, int | float) and not isinstance(there, bool)


def _global_batch(context: JobContext, config: DeepSpeedConfig, stage: StageSettings) -> Iterator[Finding]:
    """train_batch_size against ranks x batch x accumulation."""
    there = dsconfig.get(config, "train_batch_size")
    ranks = ranks_of(context, stage)
    names = ("per_device_train_batch_size", "gradient_accumulation_steps")
    if there in (None, "auto") or ranks is None or any(name in _own(context) for name in names):
        return
    by_name = {pair.arguments[0]: pair for pair in PAIRS}
    each = [wanted_by_arguments(context, stage, by_name[name]) for name in names]
    if any(one is None or not isinstance(one.value, int) for one in each):
        return
    batch, steps = (one.value for one in each if one is not None)
    made = ranks.total * batch * steps
    if made == there:
        return
    fits = isinstance(there, int) and there % (ranks.total * batch) == 0
    yield config_disagrees.finding(
        f"train_batch_size is {there} in the DeepSpeed config, and {ranks.total} ranks x {batch} x {steps} accumulated "
        f"are {made}; transformers stops there",
        evidence=[
            config_evidence(config, "train_batch_size"),
            *_given(context, stage, names),
            Evidence(text=f"{ranks.total} ranks: {ranks.because}"),
        ],
        fix=[
            Fix(f'Set train_batch_size to "auto" in {config.path}'),
            *(
                [Fix(f"Keep it: --gradient_accumulation_steps {there // (ranks.total * batch)} makes {there} of it")]
                if fits
                else []
            ),
        ],
    )


def _accumulation_left_out(context: JobContext, config: DeepSpeedConfig, stage: StageSettings) -> Iterator[Finding]:
    """No gradient_accumulation_steps in the config, which then is 1 for the engine, whatever the arguments say."""
    name = "gradient_accumulation_steps"
    pair = next(pair for pair in PAIRS if pair.key == name)
    asked = None if name in _own(context) else wanted_by_arguments(context, stage, pair)
    if name in config.value or asked is None or not isinstance(asked.value, int) or asked.value < 2:
        return
    counted = config.value.get("train_batch_size") is not None
    what = "DeepSpeed stops: the batch sizes do not fit" if counted else "every micro-batch becomes a step of its own"
    yield config_disagrees.finding(
        f"{name} is missing in the DeepSpeed config, where it is 1 then, and {asked.said}; {what}",
        severity=Severity.ERROR if counted else Severity.WARNING,
        evidence=[
            *([config_evidence(config, "train_batch_size")] if counted else []),
            *_given(context, stage, (name,)),
        ],
        fix=[Fix(f'Add "{name}": "auto" to {config.path}')],
    )


def _given(context: JobContext, stage: StageSettings, names: tuple[str, ...]) -> Iterator[Evidence]:
    for name, value in stage.args.items():
        if plain(name) in names:
            yield context.cite(f"{name}: {value} (stage {stage.name})")


def _own(context: JobContext) -> frozenset[str]:
    """The arguments that the job's programs declare themselves, with defaults of their own."""
    return frozenset(name for program in context.job.programs.values() for name in program.options)
