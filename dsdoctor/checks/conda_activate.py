"""Setup lines that rely on `conda activate` in a shell that does not know it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from contextlib import suppress
from pathlib import PurePosixPath

from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.cluster import Cluster
from dsdoctor.facts import FactUnavailable, HostFacts
from dsdoctor.report.model import Finding, Fix, Severity, Skipped

_ACTIVATE = re.compile(
    r"(?:^|[;&|]\s*)(?P<tool>conda|mamba|micromamba)\s+activate"
    r"""(?:\s+(?P<name>"[^"]*"|'[^']*'|[^\s;&|]+))?"""
)
# What makes the shell function: the file that defines it, the hook, an activate script, or a start file that may.
_MADE = re.compile(
    r"(?:conda|mamba)\.sh\b|\bshell(?:\.posix|\.bash|\s+hook)|\bhook\b|/bin/activate\b|\.bashrc|\.bash_profile|\.profile"
)

_UNKNOWN = "relies on a shell function that a job's shell does not have"


@check(severity=Severity.ERROR, since="0.1")
def conda_activate(cluster: Cluster | None, context: JobContext) -> Iterator[Finding | Skipped]:
    """A setup line of the job says `conda activate` in a shell that has not been told what that is.

    ## Why it matters
    `conda activate` is a shell function that `conda init` puts into ~/.bashrc, and the shell that runs the setup lines
    is not interactive and does not read it: "CommandNotFoundError: Your shell has not been properly configured to use
    'conda activate'". The job does not start on any host;
    behind `|| true` it starts with whatever Python the shell had before.

    ## How to fix it
    Name the environment's interpreter instead; nothing has to be activated then.

    ## Source
    bash(1), "Invocation"; conda's documentation, "Activating an environment".
    """
    lines = context.job.job.setup
    match, line = _relied_upon(lines)
    if match is None or "BASH_ENV" in context.job.env:
        return
    name = (match["name"] or "").strip("'\"")
    behind = list(_behind(lines, cluster))
    idle = [facts.name for facts in behind if name and not _active(facts, name)]
    if behind and not idle:
        return
    way = f"{'-p' if '/' in name else '-n'} {shlex.quote(name or 'NAME')}"
    told = "has activated nothing there, and its failure ends nothing" if idle else _UNKNOWN
    yield conda_activate.finding(
        f"the setup line `{line.strip()}` {told}",
        hosts=idle,
        evidence=[context.cite(f"setup: {line.strip()}")],
        fix=[
            Fix(
                "Take the line out of the job file, and name the environment's interpreter in python:, by the "
                "path that this prints on a host",
                (f"conda run {way} which python",),
            ),
            Fix("Let setup: begin with a line that defines it: source ~/miniconda3/etc/profile.d/conda.sh"),
        ],
    )


def _relied_upon(lines: tuple[str, ...]) -> tuple[re.Match[str] | None, str]:
    """The first `conda activate` with nothing before it that could make the shell know what that is."""
    for number, line in enumerate(lines):
        match = _ACTIVATE.search(line)
        if match is None:
            continue
        if _MADE.search("\n".join(lines[:number])) or _MADE.search(line[: match.start()]):
            break
        return match, line
    return None, ""


def _behind(lines: tuple[str, ...], cluster: Cluster | None) -> Iterator[HostFacts]:
    """The hosts that have answered from behind these very lines: none of them has ended the shell there."""
    for member in cluster.examined if cluster is not None else ():
        with suppress(FactUnavailable):
            if member.facts is not None and member.facts.session.setup == lines:
                yield member.facts


def _active(host: HostFacts, name: str) -> bool:
    """Whether an environment is active on a host, or its interpreter is used anyway; True when that is not known."""
    try:
        variables, python = host.environment.variables, host.python
    except FactUnavailable:
        return True
    places = (variables.get("CONDA_PREFIX", ""), python.prefix, python.base_prefix)
    path = name.rstrip("/")
    return variables.get("CONDA_DEFAULT_ENV") == name or any(
        place == path or PurePosixPath(place).name == path for place in places if place
    )
