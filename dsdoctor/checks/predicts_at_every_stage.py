"""Prediction after stages whose predictions nobody may need."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from dsdoctor.checks.context import JobContext, is_true
from dsdoctor.checks.engine import check
from dsdoctor.facts import FactUnavailable
from dsdoctor.jobs.job import StageSettings, predicts
from dsdoctor.report.model import Finding, Fix, Severity


@check(severity=Severity.INFO, since="0.1")
def predicts_at_every_stage(context: JobContext) -> Iterator[Finding]:
    """Every stage of the job predicts on its test data, not the last one alone.

    ## Why it matters
    A program that is started with do_predict generates an answer for each test example when its training is done, and
    in continual learning the test data grow from stage to stage. With generation that can take longer than training.
    The average accuracy after all tasks needs the last stage's predictions alone; what every stage predicts is needed
    for forgetting (backward transfer) and for learning curves.

    ## How to fix it
    In a job file, `predict: last` takes do_predict from all stages but the last. In a script, leave it out of them.
    `dsdoctor jobs --from` writes `predict: last` into the job file that it makes of a script.

    ## Source
    The scripts of O-LoRA and of the programs that grew out of it, which give --do_predict to every stage; their
    run_uie_lora.py predicts on the test data of all tasks so far. Backward transfer: arXiv 1706.08840, section 2.
    """
    predicting = [stage for stage in context.stages if _predicts(stage)]
    if len(predicting) < 2 or predicting[-1] is not context.stages[-1]:
        return
    script = context.job.script is not None
    where = "Leave --do_predict out of all stages but the last" if script else "Write predict: last into the job file"
    yield predicts_at_every_stage.finding(
        f"{len(predicting)} of {len(context.stages)} stages predict on their test data (do_predict); the accuracy "
        "after the last task needs only the last stage's",
        evidence=[context.cite(f"{name}: {value} (stage {stage.name})") for stage, name, value in _shown(context)][:4],
        fix=[Fix(f"{where}, unless forgetting is to be measured")],
    )


def _predicts(stage: StageSettings) -> bool:
    with suppress(FactUnavailable):
        return any(predicts(name) and is_true(value) for name, value in stage.args.items())
    return False


def _shown(context: JobContext) -> Iterator[tuple[StageSettings, str, object]]:
    for stage in context.stages[:-1]:
        yield from ((stage, name, value) for name, value in stage.args.items() if predicts(name) and _predicts(stage))
