"""A comment among the joined lines of one command."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.script_lines import cited, listed, troubles
from dsdoctor.report.model import Finding, Fix, Severity


@check(severity=Severity.ERROR, since="0.1")
def comment_in_continuation(context: JobContext) -> Iterator[Finding]:
    """A comment stands among the lines of one command, and options follow it.

    ## Why it matters
    A comment ends the command, whether or not a backslash stands at its end: the options below it never reach the
    program, and the shell says "--learning_rate: command not found" for each of those lines. Without `set -e` the
    training runs on with its defaults.

    ## How to fix it
    Move the comment above the command, or collect the options in an array, among whose elements comments may stand.

    ## Source
    bash(1), COMMENTS: a word beginning with # causes it and all remaining characters on that line to be ignored.
    """
    lines = [trouble.line for _, trouble in troubles(context, "comment-in-continuation")]
    if not lines:
        return
    yield comment_in_continuation.finding(
        f"the comment in {listed(lines)} ends the command; the options below it do not reach the program",
        evidence=[cited(context, line) for line in dict.fromkeys(lines)],
        fix=[
            Fix("Move the comment above the command, and the option that it hides out of the command"),
            Fix('Write the options as an array, in which comments may stand: args=(…), then: program "${args[@]}"'),
        ],
    )
