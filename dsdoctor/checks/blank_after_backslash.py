"""A blank behind the backslash that was to join two lines."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.script_lines import cited, listed, troubles
from dsdoctor.report.model import Finding, Fix, Severity


@check(severity=Severity.ERROR, since="0.1")
def blank_after_backslash(context: JobContext) -> Iterator[Finding]:
    r"""A line of the script ends in a backslash and a blank, or a comment: the command ends there.

    ## Why it matters
    A backslash joins two lines only as the very last character. Before a blank it makes that blank an argument of its
    own, which argparse refuses ("unrecognized arguments:"), and all further lines are run as commands of their own:
    "--learning_rate: command not found". The training starts without those settings, or not at all.

    ## How to fix it
    Take away what follows the backslash; a comment goes on a line of its own, before the command.

    ## Source
    bash(1), QUOTING: "If a \newline pair appears, and the backslash is not itself quoted, …".
    """
    found = [trouble for _, trouble in troubles(context, "blank-after-backslash")]
    if not found:
        return
    lines = [trouble.line for trouble in found]
    said = next((trouble.text for trouble in found if trouble.text), "")
    what = f"a comment ({said[:40]})" if said else "a blank"
    yield blank_after_backslash.finding(
        f"{what} follows the backslash at the end of {listed(lines)}; the command ends there, "
        "and the lines after it are run as commands of their own",
        evidence=[cited(context, line) for line in dict.fromkeys(lines)],
        fix=[
            Fix("Let the backslash be the last character of its line; put comments above the command"),
            Fix("To find blanks at the end of lines", (f"grep -nE '\\\\[[:blank:]]+(#|//|$)' {quoted(context)}",)),
        ],
    )


def quoted(context: JobContext) -> str:
    """The script's path for a command to paste."""
    import shlex

    return shlex.quote(context.job.source)
