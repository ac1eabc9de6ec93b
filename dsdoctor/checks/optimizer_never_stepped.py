"""A trainer whose training_step lets DeepSpeed compute gradients and never take the step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from packaging.version import InvalidVersion, Version

from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.report.model import Evidence, Finding, Fix, Severity

_STEPS_INSIDE = Version("4.30.0")  # from here on the engine steps inside accelerator.backward, and nowhere else


@check(severity=Severity.ERROR, since="0.1")
def optimizer_never_stepped(context: JobContext) -> Iterator[Finding]:
    """The program overrides training_step with self.deepspeed.backward(loss), and nothing calls step.

    ## Why it matters
    Up to transformers 4.29 the Trainer called the engine's step itself. From 4.30 on the step is taken inside
    accelerator.backward(), which the override leaves out: the weights never change. The log shows `learning_rate: 0`
    as an integer on every line, or losses that are the same in every run whatever is set.

    ## How to fix it
    Override compute_loss instead; or call self.accelerator.backward(loss) there.

    ## Source
    transformers, trainer.py, 4.29 and 4.30; seen with O-LoRA's and N-LoRA's programs.
    """
    for program in context.job.programs.values():
        place = program.never_stepped
        if place is None:
            continue
        versions = _versions(context)
        if versions and all(version < _STEPS_INSIDE for version in versions.values()):
            continue
        hosts = [host for host, version in versions.items() if version >= _STEPS_INSIDE]
        newest = f" ({max(versions.values())} is installed)" if hosts else ""
        yield optimizer_never_stepped.finding(
            "training_step hands the loss to self.deepspeed.backward and calls no step: with transformers from 4.30 on"
            f"{newest} no weight ever changes",
            hosts=hosts,
            severity=Severity.ERROR if hosts else Severity.WARNING,
            evidence=[Evidence(text=place.text, source=program.path, line=place.line)],
            fix=[
                Fix("Override compute_loss instead of training_step"),
                Fix("Write self.accelerator.backward(loss), which takes the step, too"),
                Fix("Install what the program was written for", ("pip install 'transformers<4.30'",)),
            ],
        )


def _versions(context: JobContext) -> dict[str, Version]:
    found = {}
    for host, text in context.versions("transformers").items():
        with suppress(InvalidVersion):
            found[host] = Version(text)
    return found
