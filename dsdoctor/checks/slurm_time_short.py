"""The time limit of an sbatch script against the time that the training is forecast to take."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.context import JobContext
from dsdoctor.checks.duration import durations
from dsdoctor.checks.engine import check
from dsdoctor.checks.room import ask_model
from dsdoctor.checks.script_lines import cited
from dsdoctor.cluster import Cluster
from dsdoctor.facts import FactUnavailable
from dsdoctor.jobs.forecast.speed import span
from dsdoctor.jobs.script.slurm import request_of
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped


@check(severity=Severity.WARNING, since="0.1")
def slurm_time_short(cluster: Cluster, context: JobContext) -> Iterator[Finding | Skipped]:
    """The training is forecast to take longer than the script's #SBATCH --time, even if everything goes well.

    ## Why it matters
    Slurm ends the job at the limit, in the middle of a step; what was not saved is lost.

    ## How to fix it
    Ask for more time, or save checkpoints and go on from the last one.

    ## Source
    sbatch(1), --time; the forecast of long-training, whose least is compared.
    """
    script = context.job.script
    request = request_of(script.directives) if script is not None else None
    if request is None or not request.seconds:
        return
    ask_model(context.job)
    try:
        found = [stage.seconds for stage in durations(context.job, cluster)]
    except FactUnavailable as missing:
        yield slurm_time_short.skipped([member.name for member in cluster], str(missing))
        return
    least = sum(seconds[0] for seconds in found if seconds is not None)
    most = sum(seconds[1] for seconds in found if seconds is not None)
    if least <= request.seconds:
        return
    yield slurm_time_short.finding(
        f"the training takes {span(least)} to {span(most)}, and Slurm ends it after {span(request.seconds)}",
        evidence=[
            cited(context, request.lines["--time"]),
            Evidence(text=f"{len([one for one in found if one])} of {len(found)} stages counted"),
        ],
        fix=[Fix("Ask for more time, or save checkpoints and start again from the last one")],
    )
