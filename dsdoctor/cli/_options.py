"""The options that several commands share: which hosts, and how they are reached."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, get_args

import click

from dsdoctor.cli._project import Adding, split_names

if TYPE_CHECKING:
    from dsdoctor.hosts.examine import HostChoice

Decorator = Callable[[Any], Any]


def host_options() -> tuple[Decorator, ...]:
    """The options that choose hosts; :func:`host_choice` takes their values out again."""
    from dsdoctor.hosts.examine import DEFAULT_HOSTFILE
    from dsdoctor.hosts.transport import TransportKind

    return (
        click.option(
            "--hostfile",
            is_flag=False,
            flag_value=DEFAULT_HOSTFILE,
            metavar="[FILE]",
            help=f"The hosts, in DeepSpeed's form. Without FILE: {DEFAULT_HOSTFILE}. Without the option: "
            f"{DEFAULT_HOSTFILE} where there is one, else this machine.",
        ),
        click.option("--include", metavar="FILTER", help="Only these hosts and slots: HOST[:SLOT[,SLOT...]][@HOST...]"),
        click.option("--exclude", metavar="FILTER", help="All but these hosts and slots, in the same form."),
        click.option(
            "--transport",
            type=click.Choice(get_args(TransportKind)),
            default="auto",
            show_default=True,
            help="How hosts are reached. auto: your ssh, or paramiko where that does the same.",
        ),
        click.option("--python", metavar="PATH", help="The job's interpreter on the hosts; other settings give way."),
        click.option(
            "--timeout",
            type=click.FloatRange(min=0.1, max=3600),
            default=30.0,
            show_default=True,
            metavar="SECONDS",
            help="The most that one host may take to answer.",
        ),
    )


def host_choice(options: dict[str, Any]) -> HostChoice:
    """Take the values of :func:`host_options` out of a command's options."""
    from dsdoctor.hosts.examine import HostChoice

    names = ("hostfile", "include", "exclude", "transport", "python", "timeout", "network")
    return HostChoice(**{name: options.pop(name) for name in names if name in options})


def ignore_option(text: str) -> Decorator:
    """--ignore, which adds to what the project's file ignores."""
    return click.option(
        "--ignore", cls=Adding, multiple=True, callback=split_names, metavar="NAME[,NAME...]", help=text
    )


def facts_options() -> tuple[Decorator, ...]:
    """Where facts are read from and kept."""
    return (
        click.option("--facts", "recorded", metavar="DIR", help="Judge saved snapshots; no host is contacted."),
        click.option("--save-facts", "keep", metavar="DIR", help="Keep the facts of every host, one JSON file each."),
        click.option(
            "--redact", is_flag=True, help="Keep them without user and host names, addresses and secrets, to be shared."
        ),
    )


def with_options(*decorators: Decorator) -> Decorator:
    """Apply option decorators so that `--help` lists them in the order they are given."""

    def apply(command: Any) -> Any:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return apply


def report_options() -> tuple[Decorator, ...]:
    """How a report is printed, and where to."""
    from dsdoctor.report.formats import FORMATS

    return (
        click.option("--format", "form", type=click.Choice(FORMATS), default="text", show_default=True),
        click.option("--output", metavar="FILE", help="Write the report into a file, whole or not at all."),
        click.option("-v", "--verbose", is_flag=True, help="Name what passed; show all evidence."),
        click.option(
            "--fail-on",
            type=click.Choice(["error", "warning", "info"]),
            default="error",
            show_default=True,
            help="From which severity on the exit code is 1.",
        ),
    )
