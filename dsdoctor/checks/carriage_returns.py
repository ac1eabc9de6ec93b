"""A script with the line ends of Windows."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.script_lines import troubles
from dsdoctor.report.model import Evidence, Finding, Fix, Severity


@check(severity=Severity.ERROR, since="0.1")
def carriage_returns(context: JobContext) -> Iterator[Finding]:
    r"""The script has Windows' line ends: a carriage return stands at the end of its lines.

    ## Why it matters
    The shell takes the carriage return for a part of the last word: "$'\r': command not found", "bad interpreter:
    /bin/bash^M", a model path that does not exist because its name ends in an invisible character. No backslash at
    the end of a line joins it with the next.

    ## How to fix it
    Take them out, and tell git not to put them back.

    ## Source
    bash(1): blanks are space and tab, and nothing else.
    """
    for script, trouble in troubles(context, "carriage-return"):
        count = script.text.count("\r\n")
        name = shlex.quote(context.job.source)
        yield carriage_returns.finding(
            f"{count} {'line ends' if count == 1 else 'lines end'} in a carriage return, the first is line "
            f"{trouble.line}; a line feed alone is wanted",
            evidence=[Evidence(text="\\r at the end of the line", source=context.job.source, line=trouble.line)],
            fix=[
                Fix("Take the carriage returns out", (f"sed -i 's/\\r$//' {name}",)),
                Fix("Keep them out", ("echo '*.sh text eol=lf' >> .gitattributes",)),
            ],
        )
