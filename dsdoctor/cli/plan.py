"""`dsdoctor plan`: what a launch would do, host by host, with the reason for every variable."""

from __future__ import annotations

from typing import Any

import click

from dsdoctor.cli._options import with_options
from dsdoctor.cli.launch import launch_options


@click.command("plan")
@with_options(*launch_options())
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", help="Shell to paste, or JSON.")
def plan(form: str, **options: Any) -> int:
    """Print what launch would do (the same as launch --dry-run).

    The hosts are looked at; nothing is copied or started.
    """
    from dsdoctor.cli._launching import show_plan

    return show_plan(options, form)
