"""What a script asks Slurm for against what its launcher starts."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.script_lines import calls, cited
from dsdoctor.jobs.script.ranks import shape_of
from dsdoctor.jobs.script.slurm import Request, request_of
from dsdoctor.report.model import Finding, Fix, Severity


@check(severity=Severity.ERROR, since="0.1")
def slurm_request_unfit(context: JobContext) -> Iterator[Finding]:
    """The #SBATCH lines ask for fewer nodes or GPUs than the launcher in the script is told to use, or for more.

    ## Why it matters
    torchrun with --nnodes 4 on two nodes waits for the others until the rendezvous times out; with --nproc_per_node 8
    on four GPUs the ranks from 4 on end with "invalid device ordinal". What is asked for and not used is paid for.

    ## How to fix it
    Let the launcher take Slurm's own numbers (`--nnodes $SLURM_NNODES`), or make the two equal.

    ## Source
    sbatch(1): --nodes, --gres, --gpus-per-node, --gpus; torchrun's, deepspeed's and accelerate's own options.
    """
    script = context.job.script
    if script is None or not script.directives:
        return
    request = request_of(script.directives)
    accelerate = context.job.accelerate.value if context.job.accelerate is not None else None
    told = set()
    for call in calls(context):
        hosts, each = shape_of(call, accelerate)
        if call.launcher not in ("torchrun", "deepspeed", "accelerate") or (hosts, each) in told:
            continue
        told.add((hosts, each))
        for message, severity, line, fix in _judged(request, hosts, each, said_nodes=_says_nodes(call.launcher, hosts)):
            yield slurm_request_unfit.finding(
                message,
                severity=severity,
                evidence=[cited(context, one) for one in dict.fromkeys((line, call.line))],
                fix=[Fix(fix)],
            )


def _says_nodes(launcher: str, hosts: int | None) -> bool:
    """Whether a number of hosts is a word of the launcher's: one alone is what none of them has to be told."""
    return hosts is not None and (hosts > 1 or launcher == "accelerate")


def _judged(
    request: Request, hosts: int | None, each: int | None, *, said_nodes: bool
) -> Iterator[tuple[str, Severity, int, str]]:
    """What does not fit: the message, how bad it is, the line of the request, the mend."""
    if request.nodes is not None and hosts is not None and said_nodes and hosts != request.nodes:
        line = request.lines["--nodes"]
        text = f"#SBATCH asks for {request.nodes} node{'s' if request.nodes > 1 else ''}, the launcher for {hosts}"
        if hosts > request.nodes:
            yield f"{text}: it waits for hosts that never come", Severity.ERROR, line, f"#SBATCH --nodes={hosts}"
        else:
            mend = f"#SBATCH --nodes={hosts}, or --nnodes $SLURM_NNODES"
            yield f"{text}: the rest stays idle", Severity.WARNING, line, mend
    if request.gpus is None or each is None or each == request.gpus:
        return
    line = next(request.lines[name] for name in ("--gpus-per-node", "--gres", "--gpus") if name in request.lines)
    text = f"#SBATCH asks for {request.gpus} GPU{'s' if request.gpus > 1 else ''} a node, and {each} ranks start there"
    text = text if each > 1 else text.replace("1 ranks start", "1 rank starts")
    if each > request.gpus:
        yield f"{text}: invalid device ordinal", Severity.ERROR, line, f"#SBATCH --gpus-per-node={each}"
    else:
        yield f"{text}: the rest stays idle", Severity.INFO, line, f"Start {request.gpus} ranks, or ask for {each}"
