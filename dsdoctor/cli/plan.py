"""`dsdoctor plan`: what a launch would do, host by host, with the reason for every variable."""

from __future__ import annotations

from typing import Any

import click

from dsdoctor.cli.launch import launch_options


@click.command("plan")
@launch_options
def plan(**options: Any) -> int:
    """Print what launch would do (the same as launch --dry-run).

    The hosts are looked at; nothing is copied or started. The output is shell that can be pasted, or JSON.
    """
    from dsdoctor.cli._launching import show_plan

    return show_plan(options)
