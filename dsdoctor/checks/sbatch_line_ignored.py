"""An #SBATCH line where Slurm does not read it."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.script_lines import cited, listed
from dsdoctor.report.model import Finding, Fix, Severity


@check(severity=Severity.WARNING, since="0.1")
def sbatch_line_ignored(context: JobContext) -> Iterator[Finding]:
    """An #SBATCH line stands below the first command of the script, where sbatch no longer reads.

    ## Why it matters
    It is a comment there: the job gets the partition's default of what it asks for, often one GPU, little memory, an
    hour.

    ## How to fix it
    Move it above the first command.

    ## Source
    sbatch(1): options are read up to the first line that is neither a comment nor blank.
    """
    script = context.job.script
    if script is None or not script.late_directives:
        return
    lines = [word.line for word in script.late_directives]
    yield sbatch_line_ignored.finding(
        f"#SBATCH in {listed(lines)} stands below the first command and is ignored",
        evidence=[cited(context, line) for line in dict.fromkeys(lines)],
        fix=[Fix("Move it above the first command")],
    )
