"""`dsdoctor launch`: check the hosts, copy the code, give each host its own environment, run the stages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from dsdoctor.cli._options import host_options

if TYPE_CHECKING:
    pass


def launch_options(command: Any) -> Any:
    """The options that `launch` and `plan` share: what to run, on which hosts, with which settings."""
    for option in reversed(
        (
            click.argument("job"),
            *host_options(),
            click.option("--profile", help="A profile of the job file; without it the job's default profile."),
            click.option(
                "--set", "settings", multiple=True, metavar="[STAGE.]KEY=VALUE", help="Lay an argument over the job's."
            ),
            click.option(
                "--env",
                "variables",
                multiple=True,
                metavar="[HOST:]NAME[=VALUE]",
                help="Set a variable for the ranks, on one host or on all. Without a value it is taken from here.",
            ),
            click.option(
                "--master-port", type=click.IntRange(1, 65535), help="Where the ranks meet; else a free port."
            ),
            click.option("--ignore", multiple=True, metavar="NAME", help="Do not let this finding stop the launch."),
            click.option("--no-check", is_flag=True, help="Do not check the hosts."),
            click.option(
                "--runs",
                "base",
                default="runs",
                show_default=True,
                type=click.Path(file_okay=False),
                help="Where the directories of runs are.",
            ),
            click.option("--fresh", is_flag=True, help="Start a new run, also when the last one is unfinished."),
            click.option(
                "--format", "form", type=click.Choice(["text", "json"]), default="text", help="How a plan is printed."
            ),
        )
    ):
        command = option(command)
    return command


@click.command("launch")
@launch_options
@click.option("--dry-run", is_flag=True, help="Print the plan as shell to paste (or as JSON), and start nothing.")
@click.option(
    "--lifeline",
    type=click.FloatRange(min=3),
    default=20.0,
    show_default=True,
    metavar="SECONDS",
    help="A host that is silent for so long is lost; its ranks are stopped on both ends.",
)
def launch(dry_run: bool, lifeline: float, **options: Any) -> int:
    """Check the hosts, copy the code, run the job's stages.

    Each host gets its own environment, derived from its own facts. The first failure stops every host and is
    diagnosed; launching again goes on with the first stage that is not done.
    """
    from dsdoctor.cli._launching import run_launch, show_plan

    return show_plan(options) if dry_run else run_launch(options, lifeline)
