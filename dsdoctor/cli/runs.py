"""`dsdoctor runs`: which runs there are, and how they stand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from dsdoctor.cli._options import with_options
from dsdoctor.cli._runs import runs_option

if TYPE_CHECKING:
    from dsdoctor.cli._runs import Standing
    from dsdoctor.run.directory import RunDirectory


@click.command("runs")
@with_options(runs_option())
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option(
    "--clear",
    "cleared",
    metavar="RUN",
    help="Take away what the hosts keep of a run that is over: the lines that no head has fetched. Its directory here "
    "and its outputs stay.",
)
def runs(base: str, form: str, cleared: str | None) -> int:
    """List the runs, the newest first.

    A run is called running only when the process that carries it out is proven to be alive. The hosts are not asked:
    dsdoctor status does that. What hosts keep of a run (lines that a head did not fetch, because the host was lost or
    the disk here full) is named with the hosts.
    """
    import json
    import sys
    from pathlib import Path

    from dsdoctor.cli._runs import standing
    from dsdoctor.escape import escape
    from dsdoctor.run.directory import all_runs
    from dsdoctor.terminal import look_of, say, write
    from dsdoctor.yamlfile import FileError

    if cleared is not None:
        return _clear(cleared, base)
    rows = []
    for run in all_runs(Path(base)):
        try:
            rows.append(_row(run, standing(run)))
        except FileError as error:
            say(f"dsdoctor: {escape(str(error))}")
    if form == "json":
        write(json.dumps({"schema": "dsdoctor.runs/1", "runs": rows}, indent=1, ensure_ascii=False))
        return 0
    if not rows:
        say(f"There is no run in {escape(base)}.")
        return 0
    write(_table(rows, look_of(sys.stdout).width))
    return 0


def _row(run: RunDirectory, now: Standing) -> dict[str, Any]:
    from dsdoctor.run.stall_told import is_stalled

    state = now.state
    done = sum(stage.status == "done" for stage in state.stages)
    under_way = next((stage for stage in state.stages if stage.status not in ("done", "planned")), None)
    return {
        "run": run.name,
        "job": state.job,
        "status": "headless" if now.orphaned else state.status,
        "detached": state.detached,
        "head": now.head,
        "stage": under_way.name if under_way else None,
        "done": done,
        "stages": len(state.stages),
        "hosts": list(state.hosts),
        "created": state.created,
        "spools_on": list(state.spools_on) if now.head is None else [],
        "stalled": state.status == "running" and is_stalled(run, headless=now.orphaned),
    }


def _clear(name: str, base: str) -> int:
    """Take the spools of a run away on its hosts. Returns the exit code."""
    import msgspec

    from dsdoctor.cli._failures import UNEXAMINED, USAGE
    from dsdoctor.cli._runs import lines_of, meant, standing
    from dsdoctor.escape import escape
    from dsdoctor.run.kept import load
    from dsdoctor.run.reach import clear
    from dsdoctor.terminal import say

    run = meant(name, base)
    now = standing(run)
    if now.head is not None or now.state.status == "running":
        say(f"{escape(run.name)} is not over: what its hosts keep is still to be fetched (dsdoctor attach, or stop)")
        return USAGE
    kept = load(run)
    with lines_of(kept) as transports, run.locked():
        answers = clear(kept, transports)
        left = tuple(answer.host for answer in answers if answer.problem is not None or answer.left)
        run.save_state(msgspec.structs.replace(run.state(), spools_on=left))
    for answer in answers:
        if answer.problem is not None:
            say(f"{escape(answer.host)}: could not be reached ({escape(answer.problem)})")
        elif answer.left:
            say(f"{escape(answer.host)}: {answer.left} could not be removed, {answer.removed} removed")
        else:
            say(
                f"{escape(answer.host)}: {answer.removed} removed" if answer.removed else f"{escape(answer.host)}: none"
            )
    return UNEXAMINED if left else 0


def _words(row: dict[str, Any]) -> str:
    """How a run stands, in words."""
    from dsdoctor.report.layout import fold

    stalled = "STALLED, " if row["stalled"] else ""
    if row["status"] == "headless":
        return f"{stalled}without a head: attach or stop" if row["detached"] else "killed: launch again"
    if row["status"] == "running":
        return f"{stalled}running" + (", detached" if row["detached"] else "")
    words = "not finished" if row["status"] == "planned" else str(row["status"])
    return f"{words}; lines kept on {fold(row['spools_on'])}" if row["spools_on"] else words


def _table(rows: list[dict[str, Any]], width: int | None) -> str:
    from dsdoctor.cli._runs import since
    from dsdoctor.escape import escape
    from dsdoctor.report.layout import fold

    cells = [("RUN", "JOB", "STATE", "STAGES", "HOSTS", "BEGUN")]
    for row in rows:
        stage = f" {row['stage']}" if row["stage"] else ""
        of = f"{row['done']}/{row['stages']} done{stage}"
        cells.append((row["run"], row["job"], _words(row), of, fold(row["hosts"]), since(row["created"])))
    shown = [[escape(cell) for cell in line] for line in cells]
    widths = [max(len(line[column]) for line in shown) for column in range(len(cells[0]))]
    lines = ("  ".join(cell.ljust(widths[column]) for column, cell in enumerate(line)).rstrip() for line in shown)
    return "\n".join(line[:width] if width else line for line in lines)
