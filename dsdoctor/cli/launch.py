"""`dsdoctor launch`: check the hosts, copy the code, give each host its own environment, run the stages."""

from __future__ import annotations

from typing import Any

import click

from dsdoctor.cli._options import Decorator, host_options, ignore_option, with_options
from dsdoctor.cli._watching import watch_options


def launch_options() -> tuple[Decorator, ...]:
    """The argument and options that `launch` and `plan` share: what to run, on which hosts, with which settings."""
    return (
        click.argument("job"),
        *host_options(),
        click.option("--profile", metavar="NAME", help="A profile of the job; without it the job's default one."),
        click.option(
            "--set", "settings", multiple=True, metavar="[STAGE.]KEY=VALUE", help="Lay an argument over the job's."
        ),
        click.option(
            "--env",
            "variables",
            multiple=True,
            metavar="[HOST:]NAME[=VALUE]",
            help="Set a variable for the ranks, of one host or of all. Without a value it is taken from here; NAME- "
            "takes it away from what the session on a host has.",
        ),
        click.option("--master-port", type=click.IntRange(1, 65535), help="Where the ranks meet; else a free port."),
        ignore_option("Do not let this finding stop the launch."),
        click.option("--baseline", metavar="FILE", help="Nor those in this file; see dsdoctor check --save-baseline."),
        click.option("--no-check", is_flag=True, help="Do not check the hosts."),
        click.option(
            "--runs",
            "base",
            default="runs",
            show_default=True,
            type=click.Path(file_okay=False),
            help="The folder that the directories of runs are in.",
        ),
        click.option("--fresh", is_flag=True, help="Start a new run, also when the last one is unfinished."),
        click.option(
            "--stage", "only", multiple=True, metavar="NAME", help="Run only this stage, done or not. Repeatable."
        ),
        click.option("--from", "start_from", metavar="NAME", help="Run this stage and all after it, done or not."),
    )


@click.command("launch")
@with_options(*launch_options())
@click.option("--dry-run", is_flag=True, help="Print the plan and start nothing.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json"]),
    default="text",
    help="How a plan is printed.",
)
@click.option(
    "--lifeline",
    type=click.FloatRange(min=3),
    default=20.0,
    show_default=True,
    metavar="SECONDS",
    help="A host that is silent for so long is lost; its ranks are stopped on both ends. With --detach a line that "
    "broke is drawn anew until then; after that the others are stopped. Where no head is left, the guardians of the "
    "hosts hear of each other: when one fails, or is silent for twice as long, the others end.",
)
@click.option(
    "--detach", is_flag=True, help="Return when the first stage runs; it goes on without this shell and this machine."
)
@with_options(*watch_options())
@click.option("--yes", is_flag=True, help="Go on though settings or code have changed, or earlier stages are not done.")
def launch(dry_run: bool, lifeline: float, form: str, detach: bool, yes: bool, **options: Any) -> int:
    """Check the hosts, copy the code, run the job's stages.

    Each host gets its own environment, derived from its own facts. The first failure stops every host and is
    diagnosed; launching again goes on with the first stage that is not done, whatever ended it. See runs, status,
    logs, attach and stop for a run that was launched with --detach.
    """
    from dsdoctor.cli._launching import run_launch, show_plan

    return show_plan(options, form) if dry_run else run_launch(options, lifeline, detach, yes)
