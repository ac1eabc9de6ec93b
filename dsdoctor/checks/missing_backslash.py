"""A line that begins with an option and is run as a command."""

from __future__ import annotations

import re
from collections.abc import Iterator

from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.script_lines import cited, commands, listed
from dsdoctor.report.model import Finding, Fix, Severity

_OPTION = re.compile(r"--?[A-Za-z][\w-]*(=.*)?")


@check(severity=Severity.ERROR, since="0.1")
def missing_backslash(context: JobContext) -> Iterator[Finding]:
    """A line of the script begins with an option, and nothing joins it to the command above.

    ## Why it matters
    The shell runs the line as a command: "--learning_rate: command not found". The program starts without this option
    and without all that follow, with its defaults, and without `set -e` nothing stops.

    ## How to fix it
    End the line before in a backslash.

    ## Source
    bash(1): a command ends at the end of its line.
    """
    lines = [
        command.line
        for command in commands(context)
        if command.words[0].known and not command.words[0].quoted and _OPTION.fullmatch(command.words[0].text)
    ]
    if not lines:
        return
    first = dict.fromkeys(lines)
    yield missing_backslash.finding(
        f"{listed(lines)} {'begins' if len(first) == 1 else 'begin'} with an option and "
        f"{'is' if len(first) == 1 else 'are'} run as a command; the line before must end in a backslash",
        evidence=[cited(context, line) for near in first for line in (near - 1, near) if line],
        fix=[Fix("Put a backslash at the end of the line before, as its last character")],
    )
