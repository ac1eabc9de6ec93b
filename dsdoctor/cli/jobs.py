"""`dsdoctor jobs`: which jobs there are to launch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from dsdoctor.jobs.job import Job
    from dsdoctor.report.layout import Look


@click.command()
@click.option("--from", "script", metavar="SCRIPT", help="Print the job file that this shell script amounts to.")
@click.argument("arguments", nargs=-1, metavar="[-- ARGUMENT...]")
def jobs(script: str | None, arguments: tuple[str, ...]) -> int:
    """List the jobs that can be launched, with their stages and profiles.

    Job files are looked for in ./launch, then among those that come with dsdoctor. A file that cannot be read is
    named on standard error, and the exit code is then 2.

    What the script is called with, its $1 and so on, is given behind two dashes: --from run.sh -- out 8 1e-5
    """
    if script is not None:
        return _printed(script, arguments)
    if arguments:
        raise click.UsageError(f"{' '.join(arguments)}: arguments are those of the script that --from names")
    return _listed()


def _printed(script: str, arguments: tuple[str, ...]) -> int:
    """The job file of a script, on standard output."""
    from dsdoctor.escape import escape_block
    from dsdoctor.jobs.load_any import load_any
    from dsdoctor.jobs.script.as_job import as_job_file
    from dsdoctor.terminal import write
    from dsdoctor.yamlfile import FileError

    job = load_any(script, arguments=arguments)
    if job.script is None:
        raise FileError(script, "no shell script, which is what --from turns into a job file")
    write(escape_block(as_job_file(job).rstrip("\n")))
    return 0


def _listed() -> int:
    import sys

    from dsdoctor.cli._failures import USAGE
    from dsdoctor.escape import escape
    from dsdoctor.jobs.job import parse_job
    from dsdoctor.jobs.load import job_files
    from dsdoctor.terminal import look_of, say, write
    from dsdoctor.yamlfile import FileError, read_text

    look = look_of(sys.stdout)
    paths = job_files()
    if not paths:
        say("There are no jobs: no .yaml file in ./launch, and none came with this installation.")
        return 0
    broken = False
    for number, path in enumerate(paths):
        try:
            text = _described(parse_job(read_text(path), str(path)), path, look)
        except FileError as error:
            say(f"dsdoctor: {escape(str(error))}")
            broken = True
            continue
        write(("\n" if number else "") + text)
    return USAGE if broken else 0


def _described(job: Job, path: Path, look: Look) -> str:
    from dsdoctor.escape import escape, escaped

    job = escaped(job)
    lines = [f"{look.paint(path.stem, 'bold')}  {look.paint(escape(str(path)), 'dim')}"]
    if job.description:
        lines += look.paragraph(job.description, "  ")
    words = " ".join(map(str, job.command)) or job.module or job.script
    lines += look.paragraph(f"starts {words} (engine {job.engine})", "  ", "    ")
    arrow = " → " if look.unicode else " -> "
    lines += look.paragraph(f"stages: {arrow.join(stage.name for stage in job.stages)}", "  ", "    ")
    for name, profile in job.profiles.items():
        usual = " (default)" if name == job.default_profile else ""
        lines += look.paragraph(f"profile {name}{usual}: {profile.description or 'no description'}", "  ", "    ")
        if profile.only:
            carried_out = [stage.name for stage in job.stages if stage.name in profile.only]
            lines += look.paragraph(f"stages: {arrow.join(carried_out)}", "    ", "      ")
    return "\n".join(lines)
