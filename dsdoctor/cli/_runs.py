"""What the commands about runs share: which run is meant, how a run stands, times in words."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dsdoctor.cli._options import Decorator

if TYPE_CHECKING:
    from dsdoctor.hosts.transport import Transport
    from dsdoctor.run.directory import RunDirectory, RunState
    from dsdoctor.run.kept import Kept


def run_options() -> tuple[Decorator, ...]:
    """The run that is meant, by name or path, and where runs are."""
    return (click.argument("run", required=False), runs_option())


def runs_option() -> Decorator:
    """--runs, the folder of the runs."""
    return click.option(
        "--runs",
        "base",
        default="runs",
        show_default=True,
        type=click.Path(file_okay=False),
        help="The folder that the directories of runs are in.",
    )


def meant(run: str | None, base: str) -> RunDirectory:
    """The run that is meant; the newest when none is named. Raises FileError."""
    from dsdoctor.run.directory import find_run

    return find_run(Path(base), run)


@dataclass(frozen=True)
class Standing:
    """How a run stands on this machine. `head` is the process that carries it out."""

    state: RunState
    head: int | None
    elsewhere: str | None = None  # the machine that the head is on

    @property
    def orphaned(self) -> bool:
        """Whether the state says running and nobody carries the run out."""
        return self.state.status == "running" and self.head is None


def standing(run: RunDirectory) -> Standing:
    """How a run stands. Raises FileError."""
    holder = run.holder()
    state = run.state()
    return Standing(state, None) if holder is None else Standing(state, holder.pid, holder.host)


@contextmanager
def lines_of(kept: Kept) -> Iterator[dict[str, Transport]]:
    """Transports to the hosts of a run, closed behind it."""
    from dsdoctor.run.kept import lines_to

    transports = lines_to(kept)
    try:
        yield transports
    finally:
        for transport in transports.values():
            transport.close()


def since(created: str) -> str:
    """How long ago a time of the run's state is, in words; empty when it is not known."""
    try:
        seconds = time.time() - datetime.strptime(created, "%Y-%m-%dT%H:%M:%S%z").timestamp()
    except ValueError:
        return ""
    return f"{duration(seconds)} ago"


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3 h 5 min`, `2 d 4 h`."""
    whole = max(0, int(seconds))
    if whole < 120:
        return f"{whole} s"
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if minutes < 60:
        return f"{minutes} min"
    return f"{hours} h {minutes % 60} min" if hours < 24 else f"{days} d {hours % 24} h"
