"""An argument that the program does not declare."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.context import JobContext, plain
from dsdoctor.checks.engine import check
from dsdoctor.checks.nearest import nearest
from dsdoctor.checks.script_lines import calls, cited
from dsdoctor.checks.tables import training_arguments
from dsdoctor.jobs.program import Program
from dsdoctor.jobs.script.model import Call, Word
from dsdoctor.report.model import Evidence, Finding, Fix, Severity

_LAUNCHERS_OWN = frozenset({"local_rank", "local-rank"})


@check(severity=Severity.ERROR, since="0.1")
def unknown_argument(context: JobContext) -> Iterator[Finding]:
    """The program is started with an argument that its parser does not know.

    ## Why it matters
    argparse stops each rank with "error: unrecognized arguments", after the hosts have been set up; a program that
    uses parse_known_args ignores it without a word, and trains with the default.

    ## How to fix it
    Write the name as the program declares it.

    ## Source
    The program's source, read and not run: add_argument, the dataclasses given to HfArgumentParser, and the arguments
    of transformers.TrainingArguments 4.x and 5.x. Where a part of the parser is built elsewhere nothing is said.
    """
    told = set()
    for call in calls(context):
        program = context.job.programs.get(call.program.text) if call.program is not None else None
        if program is None or not program.whole:
            continue
        known = _known(program)
        for word, name in _given(call):
            if _is_known(name, known) or (program.path, name) in told:
                continue
            told.add((program.path, name))
            near = nearest(name, known)
            effect = "stops" if program.refuses_unknown else "ignores it, and goes on with its default"
            yield unknown_argument.finding(
                f"--{name} is no argument of {program.path}, which {effect}"
                + (f"; did you mean --{near}?" if near else ""),
                severity=Severity.ERROR if program.refuses_unknown else Severity.WARNING,
                evidence=[cited(context, word.line), Evidence(text=_declares(program), source=program.path)],
                fix=[Fix(f"Write --{near}" if near else f"Leave --{name} out, or declare it in the program")],
            )


def _known(program: Program) -> frozenset[str]:
    return program.options | training_arguments() if program.hf_classes else program.options


def _given(call: Call) -> Iterator[tuple[Word, str]]:
    """The long options of a call, with their names as the script has them."""
    for word in call.arguments:
        name = word.text.partition("=")[0]
        if name.startswith("--") and len(name) > 2 and not word.quoted and "$" not in name:
            yield word, name[2:]


def _is_known(name: str, known: frozenset[str]) -> bool:
    """Whether argparse takes it: the name, its beginning, or `no_` before a name, which HfArgumentParser adds."""
    key = plain(name)
    if key in known or key in _LAUNCHERS_OWN or key == "help" or key.removeprefix("no_") in known:
        return True
    return any(other.startswith(key) for other in known)


def _declares(program: Program) -> str:
    count = len(program.options)
    own = f"declares {count} argument{'' if count == 1 else 's'}"
    return f"{own}, and those of {', '.join(program.hf_classes)}" if program.hf_classes else own
