"""Setup lines that rely on `conda activate` in a shell that does not know it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from contextlib import suppress

from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.cluster import Cluster
from dsdoctor.facts import FactUnavailable
from dsdoctor.report.model import Finding, Fix, Severity, Skipped

_ACTIVATE = re.compile(
    r"(?:^|[;&|]\s*)(?P<tool>conda|mamba|micromamba)\s+activate"
    r"""(?:\s+(?P<name>"[^"]*"|'[^']*'|[^\s;&|]+))?"""
)
# What makes the shell function: the file that defines it, the hook, an activate script, or a start file that may.
_MADE = re.compile(
    r"(?:conda|mamba)\.sh\b|\bshell(?:\.posix|\.bash|\s+hook)|\bhook\b|/bin/activate\b|\.bashrc|\.bash_profile|\.profile"
)


@check(severity=Severity.ERROR, since="0.1")
def conda_activate(cluster: Cluster | None, context: JobContext) -> Iterator[Finding | Skipped]:
    """A setup line of the job says `conda activate` in a shell that has not been told what that is.

    ## Why it matters
    `conda activate` is a shell function that `conda init` puts into ~/.bashrc, and the shell that runs the setup lines
    is not interactive and does not read it: "CommandNotFoundError: Your shell has not been properly configured to use
    'conda activate'". The job does not start on any host.

    ## How to fix it
    Name the environment's interpreter instead; nothing has to be activated then.

    ## Source
    bash(1), "Invocation"; conda's documentation, "Activating an environment".
    """
    lines = context.job.job.setup
    if "BASH_ENV" in context.job.env or _has_worked(lines, cluster):
        return
    for number, line in enumerate(lines):
        match = _ACTIVATE.search(line)
        if match is None:
            continue
        if _MADE.search("\n".join(lines[:number])) or _MADE.search(line[: match.start()]):
            return
        name = (match["name"] or "NAME").strip("'\"")
        option = "-p" if "/" in name else "-n"
        yield conda_activate.finding(
            f"the setup line `{line.strip()}` relies on a shell function that a job's shell does not have",
            evidence=[context.cite(f"setup: {line.strip()}")],
            fix=[
                Fix(
                    "Take the line out of the job file, and name the environment's interpreter in python:, by the "
                    "path that this prints on a host",
                    (f"conda run {option} {shlex.quote(name)} which python",),
                ),
                Fix("Let setup: begin with a line that defines it: source ~/miniconda3/etc/profile.d/conda.sh"),
            ],
        )
        return


def _has_worked(lines: tuple[str, ...], cluster: Cluster | None) -> bool:
    """Whether a host has answered from behind these very lines: then its shell knows what they say."""
    for member in cluster.examined if cluster is not None and lines else ():
        with suppress(FactUnavailable):
            if member.facts is not None and member.facts.session.setup == lines:
                return True
    return False
