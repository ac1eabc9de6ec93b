"""More ranks on a host than CUDA_VISIBLE_DEVICES leaves GPUs."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.script_lines import calls, cited
from dsdoctor.jobs.script.model import Call, Word
from dsdoctor.report.model import Finding, Fix, Severity

_NAME = "CUDA_VISIBLE_DEVICES"


@check(severity=Severity.ERROR, since="0.1")
def ranks_exceed_visible(context: JobContext) -> Iterator[Finding]:
    """A launcher is to start more ranks on a host than CUDA_VISIBLE_DEVICES lets them see GPUs.

    ## Why it matters
    The ranks beyond the last visible GPU stop with "CUDA error: invalid device ordinal", and the others wait for them;
    or two share one card, and NCCL says "Duplicate GPU detected".

    ## How to fix it
    Let the number of ranks be that of the GPUs named.

    ## Source
    CUDA's programming guide, CUDA_VISIBLE_DEVICES; torch.distributed.run, --nproc-per-node.
    """
    for call in calls(context):
        held = call.command.variables.get(_NAME)
        word = _ranks(call)
        if held is None or word is None or not word.text.isdigit() or not isinstance(held.value, str):
            continue
        devices = [part for part in held.value.split(",") if part.strip()]
        if not devices or not all(part.strip().isdigit() for part in devices) or int(word.text) <= len(devices):
            continue
        yield ranks_exceed_visible.finding(
            f"{word.text} ranks are to be started on a host, and {_NAME}={held.value} shows them "
            f"{len(devices)} {'GPU' if len(devices) == 1 else 'GPUs'}",
            evidence=[cited(context, line) for line in dict.fromkeys((held.line, word.line))],
            fix=[Fix(f"Start {len(devices)}, or name {word.text} GPUs")],
        )
        return


def _ranks(call: Call) -> Word | None:
    if call.launcher == "torchrun":
        return call.option("--nproc_per_node", "--nproc-per-node")
    return None
