"""The batch sizes of a DeepSpeed config do not go together, in a program that hands it to DeepSpeed itself."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.job_ranks import ranks_of
from dsdoctor.checks.precision import config_evidence
from dsdoctor.report.model import Evidence, Finding, Fix, Severity

_PARTS = ("train_micro_batch_size_per_gpu", "gradient_accumulation_steps")
_WHOLE = "train_batch_size"


@check(severity=Severity.ERROR, since="0.1")
def batch_sizes_disagree(context: JobContext) -> Iterator[Finding]:
    """train_batch_size is not train_micro_batch_size_per_gpu x gradient_accumulation_steps x ranks.

    ## Why it matters
    DeepSpeed stops: "Check batch related parameters. train_batch_size is not equal to micro_batch_per_gpu *
    gradient_acc_step * world_size". A config that is right on eight cards stops on two. Under the Trainer the same
    numbers are compared with the arguments: config-disagrees.

    ## How to fix it
    Leave one of the three out: DeepSpeed works it out.

    ## Source
    DeepSpeed 0.19.8, runtime/config.py, _batch_assertion.
    """
    config = context.deepspeed
    if config is None or any(context.uses_trainer(stage) for stage in context.stages):
        return
    whole, micro, steps = (config.value.get(key) for key in (_WHOLE, *_PARTS))
    ranks = ranks_of(context, context.stages[0]) if context.stages else None
    if ranks is None or not isinstance(micro, int) or not isinstance(steps, int) or whole is None:
        return
    made = ranks.total * micro * steps
    if made == whole:
        return
    product = f"{ranks.total} ranks x {micro} x {steps} accumulated"
    yield batch_sizes_disagree.finding(
        f"{_WHOLE} is {whole}, and {product} are {made}; DeepSpeed stops",
        evidence=[
            *(config_evidence(config, key) for key in (_WHOLE, *_PARTS)),
            Evidence(text=f"{ranks.total} ranks: {ranks.because}"),
        ],
        fix=[Fix(f"Take {_WHOLE} out of {config.path}: it is worked out"), Fix(f"Write {_WHOLE}: {made}")],
    )
