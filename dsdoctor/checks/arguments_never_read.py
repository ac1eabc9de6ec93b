"""A program that is given arguments and never reads its command line."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.script_lines import calls, cited
from dsdoctor.report.model import Evidence, Finding, Fix, Severity


@check(severity=Severity.ERROR, since="0.1")
def arguments_never_read(context: JobContext) -> Iterator[Finding]:
    """The program is started with arguments, and nothing in its source reads a command line.

    ## Why it matters
    All of them are ignored without a word. With --deepspeed among them the training runs as plain data-parallel: "ZeRO
    stage 3" needs as much memory and time as none, and DDP's warnings stand in its log.

    ## How to fix it
    Let the program read them (HfArgumentParser, argparse), or write the settings where it has them: in its
    TrainingArguments(deepspeed="…").

    ## Source
    The program's own source: no argparse, no HfArgumentParser, no sys.argv, and no import that could read them.
    """
    told = set()
    for call in calls(context):
        program = context.job.programs.get(call.program.text) if call.program is not None else None
        if program is None or program.reads_arguments is not False or not call.arguments or program.path in told:
            continue
        told.add(program.path)
        names = [word.text.partition("=")[0] for word in call.arguments if word.text.startswith("-")]
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        ds = "--deepspeed" in names and "deepspeed" not in program.settings
        yield arguments_never_read.finding(
            f"{program.path} never reads its command line: {shown or 'its arguments'} "
            f"{'is' if len(names) == 1 else 'are'} ignored" + (", and it trains without DeepSpeed" if ds else ""),
            evidence=[
                cited(context, call.arguments[0].line),
                Evidence(text="no argparse, no HfArgumentParser, no sys.argv in it", source=program.path),
            ],
            fix=[
                Fix("Read them in the program: HfArgumentParser(TrainingArguments).parse_args_into_dataclasses()"),
                *([Fix('Write TrainingArguments(deepspeed="ds_config.json", …) there')] if ds else []),
            ],
        )
