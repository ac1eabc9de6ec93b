"""The job's Python is outside of what its packages, or the job itself, work with."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.installed import TRAINING, allows, versions
from dsdoctor.facts import HostFacts
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped


@check(severity=Severity.ERROR, since="0.1")
def python_unsupported(host: HostFacts, context: JobContext | None) -> Iterator[Finding | Skipped]:
    """The job's Python is older (or newer) than an installed package, or the job, asks for.

    ## Why it matters
    `cannot import name 'cache' from 'functools'`, `unsupported operand type(s) for |`, `'type' object is not
    subscriptable`: the code uses what this Python does not have yet. pip refuses such a package; it gets there by
    --ignore-requires-python, by a copied site-packages, by PYTHONPATH, or by another interpreter than pip's.

    ## How to fix it
    Make an environment with a Python that all of them take, and name it as `python:` in the job file.

    ## Source
    Requires-Python in the metadata of what is installed; `requires_python:` of the job file.
    """
    python = host.python
    wanted = context.job.job.requires_python if context else None
    if context and wanted and not allows(wanted, python.version):
        yield python_unsupported.finding(
            f"Python is {python.version}, and the job wants {wanted}",
            evidence=[
                Evidence(text=f"{python.executable} is {python.version}", source=host.name),
                context.cite(f"requires_python: {wanted}"),
            ],
            fix=[_fix(wanted)],
        )
    there = versions(host)
    refusing = {
        name: asked.python
        for name, asked in host.requirements.packages.items()
        if name in TRAINING and asked.python and not allows(asked.python, python.version)
    }
    if not refusing:
        return
    told = ", ".join(f"{name} {there.get(name, '')} ({wanted})" for name, wanted in refusing.items())
    yield python_unsupported.finding(
        f"Python is {python.version}, which these packages do not work with: {told}",
        evidence=[
            Evidence(text=f"{name} {there.get(name, '')}: Requires-Python: {wanted}", source=host.name)
            for name, wanted in refusing.items()
        ],
        fix=[_fix(", ".join(dict.fromkeys(refusing.values())))],
    )


def _fix(wanted: str) -> Fix:
    return Fix(f"Make an environment with a Python {wanted}, and name its interpreter as python: in the job file")
