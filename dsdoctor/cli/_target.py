"""Which run a launch goes on with, and the user's word where going on is not a matter of course."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dsdoctor.cli._failures import USAGE
from dsdoctor.escape import escape
from dsdoctor.terminal import is_terminal, say

if TYPE_CHECKING:
    from dsdoctor.jobs.job import ResolvedJob
    from dsdoctor.run.directory import RunDirectory
    from dsdoctor.run.launch import Target


def job_and_target(options: dict[str, Any]) -> tuple[ResolvedJob, Target]:
    """The job that the options name, and the run that a launch of it would carry out."""
    from dsdoctor.jobs.load import load_job
    from dsdoctor.run.launch import choose_target

    if options["only"] and options["start_from"]:
        raise click.UsageError("--stage names the stages to run, --from the first of them: give one of the two")
    job = load_job(options["job"], options["profile"], options["settings"])
    return job, choose_target(Path(options["base"]), job, options["fresh"], options["only"], options["start_from"])


def without_head(run: RunDirectory | None) -> bool:
    """Whether a run goes on by itself, its head being gone."""
    if run is None:
        return False
    state = run.state()
    return state.detached and state.status == "running" and run.holder() is None


def agreed(target: Target, yes: bool) -> int | None:
    """Ask where a run is not the work that it was, or a stage would go on from one that is not done.

    None when the launch may go on; else its exit code.
    """
    from dsdoctor.run.work import cut

    if target.changes:
        say(f"run {escape(target.name)} was begun with other settings, code or data:")
        for line in cut(list(target.changes)):
            say(f"  {escape(line)}")
        question = "Go on with it as it is now? Stages that are done stay as they are"
        if not _granted(yes, question, "--yes goes on with it in spite of that, --fresh starts a new run"):
            return USAGE
    if target.unproven:
        stages = ", ".join(target.unproven)
        say(f"{escape(target.chosen[0])} was asked for, but before it these stages are not done: {escape(stages)}")
        if not _granted(yes, "Run it without them?", "--yes runs it without them; without --stage and --from they run"):
            return USAGE
    return None


def _granted(yes: bool, question: str, otherwise: str) -> bool:
    """Whether it may be done: said beforehand, or asked on a terminal."""
    if yes:
        return True
    if is_terminal(sys.stdin) and is_terminal(sys.stderr):
        return click.confirm(question, err=True)
    say(f"\ndsdoctor: not started. {otherwise}")
    return False
