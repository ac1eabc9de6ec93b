"""A run as one page: its stages, how it ended, and what a continual-learning job measured, as a heat map and curves.

What comes from hosts is read as numbers or quoted. A picture of theirs is shown as an image in a data address, in which
a browser runs no script and fetches nothing.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator, Sequence
from html import escape as quote

import msgspec

from dsdoctor import __version__
from dsdoctor.escape import escaped
from dsdoctor.report import html
from dsdoctor.report.layout import count, fold

MOST_TASKS = 100  # a table of more is nobody's to read
_STATES = {"done": "ok", "failed": "error", "interrupted": "warning", "running": "info"}
_FIGURES = (
    ("average", "average", "%", "the tasks learnt, after the last stage"),
    ("backward_transfer", "backward transfer", "points", "earlier tasks, since they were learnt"),
    ("forgetting", "forgetting", "points", "earlier tasks, since they were best"),
    ("forward_transfer", "forward transfer", "points", "later tasks, before they are learnt"),
)


class Results(msgspec.Struct, frozen=True):
    """results.json of a stage: `accuracy` in per cent, a row a stage and an entry a task; null where not measured."""

    tasks: tuple[str, ...]
    accuracy: tuple[tuple[float | None, ...] | None, ...]
    order: str = ""
    method: str = ""
    seed: int | None = None
    stand_ins: dict[str, str] = {}
    average: float | None = None
    backward_transfer: float | None = None
    forgetting: float | None = None
    forward_transfer: float | None = None


class StageRow(msgspec.Struct, frozen=True):
    """A stage as the page tells it."""

    name: str
    status: str
    seconds: float = 0.0
    attempts: int = 0
    failure: str | None = None


class RunPage(msgspec.Struct, frozen=True):
    """All that a run's page shows."""

    run: str
    job: str
    status: str
    stages: tuple[StageRow, ...]
    created: str = ""
    hosts: tuple[str, ...] = ()
    failure: str | None = None
    summary: str | None = None
    results: Results | None = None


def results_of(content: bytes) -> Results | None:
    """What a file results.json says; None where it is not of that form."""
    try:
        results = msgspec.json.decode(content, type=Results)
    except (msgspec.DecodeError, RecursionError):
        return None
    most = len(results.tasks)
    rows = [row for row in results.accuracy if row is not None]
    if not 0 < most <= MOST_TASKS or len(results.accuracy) > most or any(len(row) > most for row in rows):
        return None
    return results if all(value is None or math.isfinite(value) for row in rows for value in row) else None


def render(page: RunPage, curves: bytes | None = None) -> str:
    """The whole page. `curves` is a picture (SVG) of the accuracy over the stages."""
    page = escaped(page)
    return html.page(f"dsdoctor run {page.run}: {page.status}", _body(page, curves))


def _body(page: RunPage, curves: bytes | None) -> Iterator[str]:
    done = sum(stage.status == "done" for stage in page.stages)
    headline = f"{page.job}: {page.status}, {done} of {count(len(page.stages), 'stage')} done"
    yield f'<h1 class="{_STATES.get(page.status, "unknown")}">{quote(headline)}</h1>'
    about = [f"run {page.run}", page.created and f"begun {page.created}", page.hosts and f"on {fold(page.hosts)}"]
    yield f'<p class="quiet">{quote(", ".join(word for word in about if word))}</p>'
    if page.failure:
        yield f'<p class="error">{quote(page.failure)}</p>'
    if page.results is not None:
        yield from _accuracy(page.results)
    if curves is not None:
        address = "data:image/svg+xml;base64," + base64.b64encode(curves).decode("ascii")
        yield '<section class="block"><h2>Each task over the stages</h2>'
        yield f'<div class="wide"><img class="picture" alt="Curves of the figures in the table above" src="{address}">'
        yield "</div></section>"
    yield from _stages(page.stages)
    if page.summary:
        yield f"<details><summary>The job's own summary</summary><pre>{quote(page.summary)}</pre></details>"
    yield f"<footer>dsdoctor {__version__}</footer>"


def _stages(stages: Sequence[StageRow]) -> Iterator[str]:
    yield '<section class="block"><h2>Stages</h2><div class="wide"><table class="stages">'
    yield "<tr><th>Stage</th><th>State</th><th>Seconds</th></tr>"
    for stage in stages:
        again = f", attempt {stage.attempts}" if stage.attempts > 1 else ""
        why = f'<br><span class="where">{quote(stage.failure)}</span>' if stage.failure else ""
        seconds = f"{stage.seconds:.1f}" if stage.seconds else ""
        yield (
            f'<tr><td>{quote(stage.name)}</td><td><span class="{_STATES.get(stage.status, "quiet")}">'
            f"{quote(stage.status)}</span>{again}{why}</td><td>{seconds}</td></tr>"
        )
    yield "</table></div></section>"


def _accuracy(results: Results) -> Iterator[str]:
    """The matrix as a table whose cells are coloured, and the figures made of it."""
    words = [results.order, results.method, "" if results.seed is None else f"seed {results.seed}"]
    about = ", ".join(word for word in words if word)
    yield f'<section class="block"><h2>Accuracy in % <span class="where">{quote(about)}</span></h2>'
    heads = "".join(f'<th scope="col">{_task(task, results)}</th>' for task in results.tasks)
    yield f'<div class="wide"><table class="heat"><tr><th>after</th>{heads}</tr>'
    for number, task in enumerate(results.tasks):
        row = results.accuracy[number] if number < len(results.accuracy) else None
        values = [*(row or ()), *[None] * len(results.tasks)][: len(results.tasks)]
        yield f'<tr><th scope="row">{number + 1} {quote(task)}</th>{"".join(map(_cell, values))}</tr>'
    yield "</table></div>"
    yield '<table class="figures">'
    for key, name, unit, what in _FIGURES:
        value: float | None = getattr(results, key)
        shown = "not measured" if value is None else f"{value:{'+' if key.endswith('transfer') else ''}.2f} {unit}"
        yield f'<tr><th scope="row">{name}</th><td>{shown}</td><td class="quiet">{what}</td></tr>'
    yield "</table></section>"


def _task(task: str, results: Results) -> str:
    stand_in = results.stand_ins.get(task)
    return quote(task) + (f'<br><span class="where">{quote(stand_in)}</span>' if stand_in else "")


def _cell(value: float | None) -> str:
    if value is None:
        return '<td class="none">–</td>'
    share = min(max(value, 0.0), 100.0) / 100
    red, green, blue = (round(light + (dark - light) * share) for light, dark in ((232, 8), (240, 76), (250, 140)))
    ink = "#ffffff" if share > 0.66 else "#1c2128"
    return f'<td style="background:#{red:02x}{green:02x}{blue:02x};color:{ink}">{value:.2f}</td>'
