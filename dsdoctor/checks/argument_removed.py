"""An argument of the Trainer that the installed transformers no longer has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from packaging.version import InvalidVersion, Version

from dsdoctor.checks.context import JobContext, plain
from dsdoctor.checks.engine import check
from dsdoctor.checks.script_lines import calls, cited
from dsdoctor.checks.tables import arguments_of
from dsdoctor.report.model import Evidence, Finding, Fix, Severity

_TABLE = Version("5.23.0")  # the release whose arguments the table has as those of now

_INSTEAD = {
    "evaluation_strategy": "eval_strategy",
    "no_cuda": "use_cpu",
    "warmup_ratio": "warmup_steps (a number below 1 is a share)",
    "group_by_length": "train_sampling_strategy group_by_length",
    "per_gpu_train_batch_size": "per_device_train_batch_size",
    "per_gpu_eval_batch_size": "per_device_eval_batch_size",
    "push_to_hub_token": "hub_token",
    "push_to_hub_model_id": "hub_model_id",
    "use_ipex": "",
}


@check(severity=Severity.ERROR, since="0.1")
def argument_removed(context: JobContext) -> Iterator[Finding]:
    """The program is given an argument of transformers' Trainer that the installed release has taken out.

    ## Why it matters
    HfArgumentParser stops every rank: "Some specified arguments are not used by the HfArgumentParser:
    ['--evaluation_strategy', 'no']". Built in code it is "TrainingArguments.__init__() got an unexpected keyword
    argument". Scripts written for 4.x have several: evaluation_strategy, overwrite_output_dir, no_cuda.

    ## How to fix it
    Write the new name, leave the argument out, or install transformers 4.

    ## Source
    transformers.TrainingArguments of 5.23 and of 4.x. For releases before 5.23 nothing is said: when each argument
    went is not in the table.
    """
    installed = _newer(context)
    if not installed:
        return
    now, earlier = arguments_of("now", "seq2seq"), arguments_of("earlier")
    gone = earlier - now
    told: set[tuple[str, str]] = set()
    for path, name, evidence in _given(context):
        if name not in gone or (path, name) in told:
            continue
        told.add((path, name))
        newest = max(installed.values())
        instead = _INSTEAD.get(name)
        yield argument_removed.finding(
            f"--{name} is no argument of transformers {newest} any more; {path} stops there"
            + (f"; {instead} is what it is now" if instead else ""),
            hosts=list(installed),
            evidence=[evidence],
            fix=[
                Fix(f"Write {instead}" if instead else f"Leave {name} out"),
                Fix("Install the release that the script was written for", ("pip install 'transformers<5'",)),
            ],
        )


def _newer(context: JobContext) -> dict[str, Version]:
    """The hosts with a transformers of the table's release or a newer one."""
    found = {}
    for host, text in context.versions("transformers").items():
        with suppress(InvalidVersion):
            if Version(text) >= _TABLE:
                found[host] = Version(text)
    return found


def _given(context: JobContext) -> Iterator[tuple[str, str, Evidence]]:
    """The program, the argument, and where it stands: in a call, or in TrainingArguments(…) in the code.

    Of calls those count whose program hands the class to its parser and declares no such argument itself.
    """
    for call in calls(context):
        program = context.job.programs.get(call.program.text) if call.program is not None else None
        if program is None or not program.hf_classes or not program.refuses_unknown:
            continue
        for word in call.arguments:
            name = plain(word.text.partition("=")[0])
            if word.text.startswith("--") and not word.quoted and name not in program.options:
                yield program.path, name, cited(context, word.line)
    for program in context.job.programs.values():
        for name, line in program.lines.items():
            yield (
                program.path,
                name,
                Evidence(text=f"{name}={program.settings[name]!r}", source=program.path, line=line),
            )
