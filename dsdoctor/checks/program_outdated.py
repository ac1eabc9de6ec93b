"""A program written for another transformers than the hosts have."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.installed import allows
from dsdoctor.jobs.marks import Place
from dsdoctor.jobs.program import Program
from dsdoctor.report.model import Evidence, Finding, Fix, Severity


@dataclass(frozen=True)
class _Use:
    """Something that programs do which a range of transformers does not take."""

    marks: tuple[str, ...]  # all of them; the last is the place
    fails: str  # the range
    works: str
    effect: str
    fix: str


_USES = (
    _Use(
        ("synced_gpus", "generation_config"),
        ">=4.37.2",
        "transformers<4.37",
        "hands synced_gpus to GenerationConfig, which refuses it (Argument `synced_gpus` is not a valid argument of "
        "`GenerationConfig`)",
        "Hand synced_gpus to model.generate(…) instead",
    ),
    _Use(
        ("three_of_init",),
        ">=4.30",
        "transformers<4.30",
        "takes the engine from deepspeed_init, which gives two values since 4.30; what is called backward on then is "
        "the bare model (object has no attribute 'backward')",
        "Leave deepspeed_init and the override of the training to the Trainer: it wraps the model itself",
    ),
)


@check(severity=Severity.ERROR, since="0.1")
def program_outdated(context: JobContext) -> Iterator[Finding]:
    """The program's source does what the installed transformers no longer takes.

    ## Why it matters
    Trainers that were published with one release override its inside. On another they stop in the middle, some after
    an hour of training, at the first prediction.

    ## How to fix it
    Install the release that the program was written for, on every host, or change the place that is named.

    ## Source
    transformers: integrations/deepspeed.py (deepspeed_init gave engine, optimizer and scheduler up to 4.29);
    generation/configuration_utils.py of the wheels 4.34.0 (takes synced_gpus), 4.37.2 to 4.50.0 (refuse it). What was
    not looked at, 4.35 to 4.37.1, is taken for well.
    """
    installed = context.versions("transformers")
    for program in context.job.programs.values():
        for use in _USES:
            place = _place(program, use)
            if place is None:
                continue
            hosts = [host for host, version in installed.items() if allows(use.fails, version)]
            if installed and not hosts:
                continue
            newest = f" ({', '.join(sorted({installed[host] for host in hosts}))} is installed)" if hosts else ""
            yield program_outdated.finding(
                f"{program.path} {use.effect}: it goes with {use.works}{newest}",
                hosts=hosts,
                severity=Severity.ERROR if hosts else Severity.WARNING,
                evidence=[Evidence(text=place.text, source=program.path, line=place.line)],
                fix=[Fix(use.fix), Fix("Install what it was written for", (f"pip install '{use.works}'",))],
            )


def _place(program: Program, use: _Use) -> Place | None:
    if all(mark in program.marks for mark in use.marks):
        return program.marks[use.marks[-1]]
    return None
