"""A config or program that the job names and nobody can read."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.script_lines import cited
from dsdoctor.report.model import Evidence, Finding, Fix, Severity


@check(severity=Severity.ERROR, since="0.1")
def unusable_file(context: JobContext) -> Iterator[Finding]:
    """A file that the job names is there and cannot be read: no JSON, no YAML, no Python, no text.

    ## Why it matters
    Every rank stops at it, after the hosts have been set up; a Python program that needs a newer Python is a
    SyntaxError there.

    ## How to fix it
    Mend the line that is named.

    ## Source
    The file itself, read as its reader would.
    """
    for bad in context.job.bad_files:
        yield unusable_file.finding(
            f"{bad.path} cannot be used: {bad.message}",
            evidence=[
                Evidence(text=bad.message, source=bad.path, line=bad.line),
                *([cited(context, bad.named_in)] if bad.named_in and context.job.script is not None else []),
            ],
            fix=[Fix(f"Mend line {bad.line} of {bad.path}" if bad.line else f"Mend {bad.path}")],
        )
