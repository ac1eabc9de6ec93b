"""chmod -R that takes the x off folders."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.script_lines import cited, commands
from dsdoctor.report.model import Finding, Fix, Severity


@check(severity=Severity.WARNING, since="0.1")
def chmod_takes_x(context: JobContext) -> Iterator[Finding]:
    """A recursive chmod with a number gives folders no x, and nothing in them can be opened.

    ## Why it matters
    A folder without x can be listed and not entered: "Permission denied" for every file in it, for all but its owner
    or root, on the one host where the command was run.

    ## How to fix it
    Use letters with a capital X, which gives folders their x and leaves files alone.

    ## Source
    chmod(1); path_resolution(7).
    """
    for command in commands(context):
        words = [word.text for word in command.words]
        recursive = any(re.fullmatch(r"-\w*R\w*|--recursive", word) for word in words[1:])
        mode = next((word for word in words[1:] if re.fullmatch(r"[0-7]{3,4}", word)), None)
        if command.name != "chmod" or not recursive or mode is None:
            continue
        if not any(int(digit) & 4 and not int(digit) & 1 for digit in mode[-3:]):
            continue
        paths = [word for word in words[1:] if not word.startswith("-") and word != mode]
        yield chmod_takes_x.finding(
            f"chmod -R {mode} takes the x off folders, which then cannot be entered",
            evidence=[cited(context, command.line)],
            fix=[Fix("Give folders their x and leave files alone", (f"chmod -R a+rX -- {shlex.join(paths)}",))],
        )
