"""--include or --exclude beside --num_gpus or --num_nodes."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.script_lines import calls, cited
from dsdoctor.report.model import Finding, Fix, Severity

_FILTERS = ("--include", "--exclude")
_SHORT = {"--include": "-i", "--exclude": "-e"}
_COUNTS = ("--num_gpus", "--num_nodes")


@check(severity=Severity.ERROR, since="0.1")
def include_with_count(context: JobContext) -> Iterator[Finding]:
    """DeepSpeed is told which GPUs to use by --include or --exclude, and how many by --num_gpus or --num_nodes.

    ## Why it matters
    It refuses both at once: "ValueError: Cannot specify num_nodes/gpus with include/exclude".

    ## How to fix it
    Leave one of the two out.

    ## Source
    DeepSpeed, launcher/runner.py, main, 0.9 to 0.19.8.
    """
    for call in calls(context):
        if call.launcher != "deepspeed":
            continue
        filters = [(name, word) for name in _FILTERS if (word := call.option(name, _SHORT[name])) is not None]
        counts = [(name, word) for name in _COUNTS if (word := call.option(name)) is not None and word.text != "-1"]
        if filters and counts:
            names = f"{filters[0][0]} {filters[0][1].text} and {counts[0][0]} {counts[0][1].text}"
            yield include_with_count.finding(
                f"{names} are given together, and DeepSpeed stops; one of them is wanted",
                evidence=[cited(context, line) for line in dict.fromkeys((filters[0][1].line, counts[0][1].line))],
                fix=[Fix(f"Leave {counts[0][0]} out: {filters[0][0]} says how many, too")],
            )
