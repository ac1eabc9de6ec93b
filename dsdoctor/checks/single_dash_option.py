"""An option with one dash where two are wanted."""

from __future__ import annotations

import re
from collections.abc import Iterator

from dsdoctor.checks.context import JobContext, plain
from dsdoctor.checks.engine import check
from dsdoctor.checks.script_lines import calls, cited
from dsdoctor.checks.tables import training_arguments
from dsdoctor.jobs.program import Program
from dsdoctor.jobs.script.launchers import DEEPSPEED, TORCHRUN
from dsdoctor.jobs.script.model import Call, Word
from dsdoctor.report.model import Finding, Fix, Severity

_ONE_DASH = re.compile(r"-(?P<name>[A-Za-z][A-Za-z0-9]*(?:[_-][A-Za-z0-9]+)*)(?:=.*)?")
_TYPOGRAPHIC = re.compile(r"[–—−][–—−-]*(?P<name>[A-Za-z][\w-]*)(?:=.*)?")
_LAUNCHERS = {"deepspeed": DEEPSPEED, "torchrun": TORCHRUN}


@check(severity=Severity.ERROR, since="0.1")
def single_dash_option(context: JobContext) -> Iterator[Finding]:
    """An option is written with one dash, or with a typographic one, where the program wants two.

    ## Why it matters
    argparse takes -train_mode for the short option -t with the value rain_mode, or for no option of its: "unrecognized
    arguments", or "expected one argument" at another option. Long dashes come from documents and chat windows that
    "improve" what is pasted.

    ## How to fix it
    Write two plain dashes.

    ## Source
    Python's argparse: an option may begin with one dash only where the program declares it so.
    """
    for call in calls(context):
        program = context.job.programs.get(call.program.text) if call.program is not None else None
        for word in (*call.options, *call.arguments):
            name = _wrong(word, call, program)
            if name is None:
                continue
            yield single_dash_option.finding(
                f"{word.text.partition('=')[0]} in line {word.line} begins with "
                f"{'one dash' if word.text.startswith('-') else 'a typographic dash'}; --{name} is wanted",
                severity=Severity.ERROR if _is_sure(name, word, call, program) else Severity.WARNING,
                evidence=[cited(context, word.line)],
                fix=[Fix(f"Write --{name}")],
            )


def _wrong(word: Word, call: Call, program: Program | None) -> str | None:
    """The name of an option that lacks a dash; None for a word that may be right."""
    if word.quoted:
        return None
    typographic = _TYPOGRAPHIC.fullmatch(word.text)
    if typographic:
        return typographic["name"]
    found = _ONE_DASH.fullmatch(word.text)
    if found is None or len(found["name"]) < 3:
        return None
    name, key = found["name"], plain(found["name"])
    if word in call.options:
        table = _LAUNCHERS.get(call.launcher, frozenset())
        return name if f"--{key.replace('_', '-')}" in table else None
    if program is not None and key in program.one_dash:
        return None
    if key in training_arguments() or key == "deepspeed":
        return name
    # -lr and -batch are what some programs declare; words joined by _ hardly any does.
    return name if "_" in name and (program is None or key in program.options or not program.whole) else None


def _is_sure(name: str, word: Word, call: Call, program: Program | None) -> bool:
    if not word.text.startswith("-") or word in call.options:
        return True
    key = plain(name)
    known = training_arguments() | (program.options if program is not None else frozenset())
    return key in known or key == "deepspeed"
