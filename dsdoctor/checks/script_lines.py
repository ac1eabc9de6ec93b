"""What checks over shell scripts share: the script of a job, and its lines as evidence."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.context import JobContext
from dsdoctor.jobs.script.model import Call, Command, Script, Trouble
from dsdoctor.report.model import Evidence

_LONGEST = 160


def calls(context: JobContext) -> tuple[Call, ...]:
    """The calls of the job's script; none where the job is no script."""
    return context.job.script.calls if context.job.script is not None else ()


def commands(context: JobContext) -> tuple[Command, ...]:
    """All commands of the job's script."""
    return context.job.script.commands if context.job.script is not None else ()


def troubles(context: JobContext, kind: str) -> Iterator[tuple[Script, Trouble]]:
    """The mistakes of writing of one kind, with the script."""
    script = context.job.script
    for trouble in script.troubles if script is not None else ():
        if script is not None and trouble.kind == kind:
            yield script, trouble


def cited(context: JobContext, line: int) -> Evidence:
    """A line of the script as evidence."""
    text = context.job.script.line_text(line) if context.job.script is not None else ""
    shown = text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
    return Evidence(text=shown or f"line {line}", source=context.job.source, line=line)


def listed(lines: list[int]) -> str:
    """`line 4`, `lines 4, 9 and 12`."""
    numbers = [str(line) for line in dict.fromkeys(lines)]
    if len(numbers) == 1:
        return f"line {numbers[0]}"
    shown = numbers if len(numbers) <= 6 else [*numbers[:5], f"{len(numbers) - 5} more"]
    return f"lines {', '.join(shown[:-1])} and {shown[-1]}"
