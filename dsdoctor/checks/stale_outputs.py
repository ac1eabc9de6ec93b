"""What an earlier run left in the job's output folder."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from dsdoctor.checks.context import JobContext, is_true, value_of
from dsdoctor.checks.engine import check
from dsdoctor.checks.remedy import on_host
from dsdoctor.checks.sights import names, sights
from dsdoctor.cluster import Cluster, Member
from dsdoctor.facts import InputPath
from dsdoctor.jobs.job import StageSettings
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped

_SHOWN = 4


@check(severity=Severity.WARNING, since="0.1")
def stale_outputs(cluster: Cluster, context: JobContext) -> Iterator[Finding | Skipped]:
    """The output folder that the job names holds checkpoints or results of an earlier run.

    ## Why it matters
    Programs built on transformers' examples go on from the last checkpoint that they find there, with its step, its
    optimizer and its memory needs; others mix old results with new ones. Where only some hosts have the checkpoint,
    their ranks go on from it and the others begin anew.

    ## How to fix it
    Move it away, or say in the job what is meant (resume_from_checkpoint). A `${output_dir}` of dsdoctor's is a new
    folder in every run.

    ## Source
    get_last_checkpoint in transformers/trainer_utils.py and its example scripts (transformers#9776); the names of
    DeepSpeed's and peft's checkpoints.
    """
    seen, skipped = sights(stale_outputs, cluster, context, "output")
    yield from skipped
    for sight in seen:
        holding = [(member, path) for member, path in sight.found if path.checkpoints]
        stage = next(stage for stage in context.stages if stage.name == sight.named.stage)
        if not holding or _is_meant(stage):
            continue
        without = [member.name for member, path in sight.found if not path.checkpoints]
        left = list(dict.fromkeys(name for _, path in holding for name in path.checkpoints))
        shown = ", ".join(left[:_SHOWN]) + (f" and {len(left) - _SHOWN} more" if len(left) > _SHOWN else "")
        yield stale_outputs.finding(
            f"{sight.called()} holds what an earlier run left: {shown}; {_effect(stage, left)}"
            + (f"; {', '.join(without)} {'has' if len(without) == 1 else 'have'} none of it" if without else ""),
            hosts=names(holding),
            evidence=[
                *(
                    Evidence(text=f"{path.at}: {', '.join(path.checkpoints[:_SHOWN])}", source=member.name)
                    for member, path in holding
                ),
                context.cite(sight.cited()),
            ],
            fix=[
                Fix("Move it away", tuple(_away(member, path) for member, path in holding)),
                Fix("Write ${output_dir} in the job file: every run gets a new folder"),
            ],
        )


def _is_meant(stage: StageSettings) -> bool:
    """Whether the job says what to do with an earlier checkpoint."""
    resume = value_of(stage, "resume_from_checkpoint")
    return resume is not None and (is_true(resume) or "/" in str(resume))


def _effect(stage: StageSettings, left: list[str]) -> str:
    """What the program would do with it, as far as the arguments tell."""
    if is_true(value_of(stage, "overwrite_output_dir")):
        return "overwrite_output_dir is set, so that new files come among the old ones"
    if any(name.startswith("checkpoint-") for name in left):
        return "programs built on transformers' examples go on from the last checkpoint"
    return "new results come among the old ones"


def _away(member: Member, path: InputPath) -> str:
    old = path.at.rstrip("/")
    return on_host(member.entry, f"mv -- {shlex.quote(old)} {shlex.quote(f'{old}.before')}")
