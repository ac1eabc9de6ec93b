"""run.html of a run's directory: how it stands and what it measured, written anew whenever its state changes."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from dsdoctor.plan.model import LaunchPlan
from dsdoctor.report.run_page import Results, RunPage, StageRow, render, results_of
from dsdoctor.run.directory import RunDirectory, RunState
from dsdoctor.yamlfile import FileError

NAME = "run.html"
MOST_BYTES = 1 << 20  # of a file that a job left and that is shown


def write_page(run: RunDirectory, plan: LaunchPlan, state: RunState) -> None:
    """Replace the page. A page that cannot be written costs the run nothing: everything on it is in other files."""
    outputs = _last_outputs(run, state)
    results = _results(outputs)
    stages = tuple(StageRow(s.name, s.status, s.seconds, s.attempts, s.failure) for s in state.stages)
    page = RunPage(
        run=state.run,
        job=state.job,
        status=state.status,
        stages=stages,
        created=state.created,
        hosts=state.hosts,
        failure=state.failure,
        summary=_text(outputs / plan.summary) if outputs is not None and plan.summary else None,
        results=results,
    )
    curves = _content(outputs / "curves.svg") if outputs is not None and results is not None else None
    with suppress(FileError):
        run.write_bytes(NAME, render(page, curves).encode("utf-8", "backslashreplace"))


def _last_outputs(run: RunDirectory, state: RunState) -> Path | None:
    """Where the last stage that is done left its files."""
    done = [stage.folder for stage in state.stages if stage.status == "done"]
    return run.path / "outputs" / done[-1] if done else None


def _results(outputs: Path | None) -> Results | None:
    content = _content(outputs / "results.json") if outputs is not None else None
    return results_of(content) if content is not None else None


def _content(path: Path) -> bytes | None:
    """A file's bytes; None when it is not there, no plain file, or too long to be shown.

    What was fetched from a host may be a link to any file of this machine, which has no business on a page.
    """
    try:
        outside = path.resolve() != path.parent.parent.resolve() / path.parent.name / path.name
        if outside or not path.is_file() or path.stat().st_size > MOST_BYTES:
            return None
        return path.read_bytes()
    except OSError:
        return None


def _text(path: Path) -> str | None:
    content = _content(path)
    return None if content is None else content.decode("utf-8", "replace")
