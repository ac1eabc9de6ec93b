"""`dsdoctor logs`: the lines of a run, of all ranks or of one, as they are or as they come."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from dsdoctor.cli._options import with_options
from dsdoctor.cli._runs import run_options

if TYPE_CHECKING:
    from pathlib import Path

    from dsdoctor.run.directory import RunDirectory, RunState


@click.command("logs")
@with_options(*run_options())
@click.option("--stage", metavar="NAME", help="Only this stage; else the one under way, or the last that ran.")
@click.option("--host", metavar="NAME", help="Only the lines of this host.")
@click.option("--rank", type=click.IntRange(min=0), help="Only the lines of this rank.")
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes, stage after stage, until the run ends.")
@click.option("--tail", type=click.IntRange(min=0), metavar="N", help="Begin with the last N lines.")
def logs(
    run: str | None, base: str, stage: str | None, host: str | None, rank: int | None, follow: bool, tail: int | None
) -> int:
    """Print the lines of a run, or follow them.

    RUN is its name or its path, the newest without it. Before each line stands its host and rank, if those of
    several are shown. Control characters are written out.
    """
    from dsdoctor.cli._runs import meant

    directory = meant(run, base)
    show = _Shown(directory, host, rank, tail)
    current = _stage_of(directory.state(), stage)
    show.open(current)
    while follow:
        under_way = directory.holder() is not None  # asked before the last look, so that nothing is missed
        show.more()
        state = directory.state()
        if stage is None and _stage_of(state, None) != current:
            show.more()
            current = _stage_of(state, None)
            show.open(current)
        elif not under_way or (stage is not None and state.stage(stage).status not in ("planned", "running")):
            show.more()
            break
        _pause()
    show.last()
    return 0


def _pause() -> None:
    import time

    time.sleep(0.2)


def _stage_of(state: RunState, wanted: str | None) -> str:
    """The folder of the stage that is meant. Raises FileError for a stage that there is not."""
    import difflib

    from dsdoctor.yamlfile import FileError

    if wanted is None:
        begun = [stage for stage in state.stages if stage.attempts]
        running = [stage for stage in begun if stage.status == "running"]
        return (running or begun or list(state.stages))[-1].folder
    names = [stage.name for stage in state.stages]
    if wanted not in names:
        close = difflib.get_close_matches(wanted, names, n=1)
        near = f"did you mean {close[0]}?" if close else f"there are: {', '.join(names)}"
        raise FileError(state.run, f"there is no stage {wanted}; {near}")
    return state.stage(wanted).folder


class _Shown:
    """The lines of one stage's logs that were asked for, printed as they come."""

    def __init__(self, run: RunDirectory, host: str | None, rank: int | None, tail: int | None) -> None:
        from dsdoctor.cli._detached import Growing

        self._growing = Growing
        self._run, self._host, self._rank, self._tail = run, host, rank, tail
        self._file: Growing | None = None
        self._path: Path | None = None

    def open(self, folder: str) -> None:
        """Print what a stage has so far."""
        self._path = self._file_of(folder)
        self._file = self._growing(self._path, 0)
        if self._tail is None:
            self.more()
            return
        from collections import deque

        kept: deque[str] = deque(maxlen=self._tail)
        while text := self._file.new():
            kept.extend(self._wanted(text))
        self._print(list(kept))
        self._tail = None  # of what comes, all

    def more(self) -> None:
        """Print what has come since."""
        assert self._file is not None
        while text := self._file.new():
            self._print(self._wanted(text))

    def last(self) -> None:
        """Print a line that was not ended."""
        assert self._file is not None
        self._print(self._wanted(self._file.new(whole=False)))

    def _file_of(self, folder: str) -> Path:
        """One file where host and rank are given; else the merged one, out of which lines are taken."""
        logs = self._run.logs(folder)
        self._prefix = ""
        if self._host is not None and self._rank is not None:
            return logs / self._host / f"rank{self._rank}.log"
        return logs / "merged.log"

    def _wanted(self, text: str) -> list[str]:
        from dsdoctor.escape import escape

        lines = text.splitlines() if not text.endswith("\n") else text[:-1].split("\n")
        if self._host is not None and self._rank is not None:
            return [escape(line) for line in lines]
        return [escape(line) for line in lines if self._is_wanted(line.partition("| ")[0])]

    def _is_wanted(self, who: str) -> bool:
        """Whether a line of `host:rank` is one of those asked for; `-` is the host's launcher."""
        host, _, rank = who.rpartition(":")
        return (self._host is None or host == self._host) and (self._rank is None or rank == str(self._rank))

    def _print(self, lines: list[str]) -> None:
        from dsdoctor.terminal import write

        if lines:
            write("\n".join(lines))
