"""CUDA_VISIBLE_DEVICES beside options of DeepSpeed that outrank it."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.script_lines import calls, cited
from dsdoctor.report.model import Finding, Fix, Severity

_NAME = "CUDA_VISIBLE_DEVICES"
_OUTRANK = ("--include", "-i", "--exclude", "-e", "--num_gpus", "--num_nodes")


@check(severity=Severity.WARNING, since="0.1")
def visible_devices_ignored(context: JobContext) -> Iterator[Finding]:
    """CUDA_VISIBLE_DEVICES is set for a deepspeed that is told its GPUs by an option, too.

    ## Why it matters
    DeepSpeed then drops the variable ("Detected VISIBLE_DEVICES=… but ignoring it") and counts the option's numbers
    from the machine's first GPU: CUDA_VISIBLE_DEVICES=2,3 with --num_gpus 2 trains on 0 and 1, where perhaps somebody
    else's job runs.

    ## How to fix it
    Say it once: by --include localhost:2,3.

    ## Source
    DeepSpeed, launcher/runner.py, main; the same from 0.9 to 0.19.8.
    """
    for call in calls(context):
        held = call.command.variables.get(_NAME)
        if call.launcher != "deepspeed" or held is None or not held.value or call.option("--hostfile", "-H"):
            continue
        option = next((name for name in _OUTRANK if call.option(name) is not None), None)
        word = call.option(option) if option else None
        if option is None or word is None or (option == "--num_nodes" and word.text == "1"):
            continue
        yield visible_devices_ignored.finding(
            f"{_NAME}={held.value} is ignored by deepspeed, because {option} {word.text} is given",
            evidence=[cited(context, line) for line in dict.fromkeys((held.line, word.line))],
            fix=[Fix(f"Write --include localhost:{held.value} alone, and take {_NAME} out")],
        )
        return
