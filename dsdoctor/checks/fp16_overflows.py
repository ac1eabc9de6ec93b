"""fp16 with a model or a learning rate that is known to overflow in it."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.context import JobContext, value_of
from dsdoctor.checks.engine import check
from dsdoctor.checks.models import models_of
from dsdoctor.checks.precision import config_evidence, runs_in
from dsdoctor.jobs import dsconfig
from dsdoctor.jobs.job import StageSettings
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped

# A rate that fp16 with a loss scale seldom bears under Adam; what is published for adapters in 16 bits lies below it.
HIGH_RATE = 1e-3


@check(severity=Severity.WARNING, since="0.1")
def fp16_overflows(context: JobContext) -> Iterator[Finding | Skipped]:
    """The job trains in fp16 what is known to overflow in it: a T5, or anything with a very high learning rate.

    ## Why it matters
    fp16 ends at 65,504. The feed-forward layers of T5's family, trained in bf16, go beyond it: the loss is nan, and
    DeepSpeed halves its loss scale until "Current loss scale already at minimum - cannot decrease scale anymore.
    Exiting run." A learning rate of 1e-3 and more brings other models there.

    ## How to fix it
    bf16 where every GPU has it (compute capability 8.0), else fp32 for a T5; for others a lower learning rate and a
    warm-up.

    ## Source
    huggingface/transformers#4586 and #10956 (T5 in fp16); transformers keeps T5's `wo` in fp32 when it loads the model
    in fp16, which a DeepSpeed engine undoes. A seed's run with a high rate ended with the message above.
    """
    told: set[str] = set()
    for stage in context.stages:
        if runs_in(context, stage) != "fp16":
            continue
        reasons = [(text, cited) for text, cited in _reasons(context, stage) if text not in told]
        if not reasons:
            continue
        told.update(text for text, _ in reasons)
        yield fp16_overflows.finding(
            f"fp16 is on with {' and '.join(text for text, _ in reasons)}: the loss is likely to become nan",
            evidence=[*_where(context, stage), *(context.cite(cited) for _, cited in reasons)],
            fix=[
                Fix("Use bf16 where every GPU has it: --bf16 true instead of --fp16 true"),
                Fix("On cards without bf16: fp32 for a T5, for others a learning rate of 1e-4 or less with a warm-up"),
            ],
        )


def _reasons(context: JobContext, stage: StageSettings) -> Iterator[tuple[str, str]]:
    """What speaks against fp16, with the argument to cite."""
    for model in models_of(context):
        if model.stage == stage.name and model.is_t5:
            yield f"the T5 model {model.path}", model.cited
    rate = value_of(stage, "learning_rate")
    if isinstance(rate, int | float) and not isinstance(rate, bool) and rate >= HIGH_RATE:
        yield f"a learning rate of {rate:g}", f"learning_rate: {rate} (stage {stage.name})"


def _where(context: JobContext, stage: StageSettings) -> Iterator[Evidence]:
    """Where fp16 is switched on."""
    config = context.deepspeed
    if config is not None and dsconfig.get(config, "fp16.enabled") is not None:
        yield config_evidence(config, "fp16.enabled")
    for name in ("fp16", "mixed_precision", "precision"):
        value = value_of(stage, name)
        if value is not None:
            yield context.cite(f"{name}: {value} (stage {stage.name})")
