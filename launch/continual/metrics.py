"""What a run is judged by: the accuracy matrix, its average, backward transfer and forgetting, and the table of them.

`matrix[k][i]` is the accuracy in per cent on task i after stage k (both from 0); a row is None where a stage is
missing, and an entry is None or not there where a task was not measured. The definitions are those of GEM
(arXiv 1706.08840) for the average and backward transfer, and of arXiv 1801.10112 for forgetting.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

Row = Sequence["float | None"]
Matrix = Sequence["Row | None"]


def _entry(matrix: Matrix, stage: int, task: int) -> float | None:
    row = matrix[stage]
    return row[task] if row is not None and task < len(row) else None


def _mean(values: list[float | None]) -> float | None:
    """The mean, or None when there is nothing or something is missing: a mean of the rest would pass for the whole."""
    known = [value for value in values if value is not None]
    return fmean(known) if known and len(known) == len(values) else None


def average(matrix: Matrix) -> float | None:
    """The mean accuracy over the tasks seen, after the last stage, in per cent."""
    last = len(matrix) - 1
    return _mean([_entry(matrix, last, task) for task in range(last + 1)])


def backward_transfer(matrix: Matrix) -> float | None:
    """The mean over the earlier tasks of (accuracy at the end - accuracy right after learning), in points."""
    last = len(matrix) - 1
    changes: list[float | None] = []
    for task in range(last):
        learnt, kept = _entry(matrix, task, task), _entry(matrix, last, task)
        changes.append(None if learnt is None or kept is None else kept - learnt)
    return _mean(changes)


def forgetting(matrix: Matrix) -> float | None:
    """The mean over the earlier tasks of (best accuracy before the last stage - accuracy at the end), in points."""
    last = len(matrix) - 1
    losses: list[float | None] = []
    for task in range(last):
        before = [value for stage in range(last) if (value := _entry(matrix, stage, task)) is not None]
        kept = _entry(matrix, last, task)
        losses.append(None if not before or kept is None else max(before) - kept)
    return _mean(losses)


def table(matrix: Matrix, tasks: Sequence[str], titles: Sequence[str]) -> str:
    """The matrix as text, a line a stage and a column a task, with the three figures under it; `-` where unknown.

    `tasks` are all tasks of the order, so that a table in the middle of a run shows what is to come; `titles` are
    what stands over the columns.
    """

    def figure(value: float | None, sign: bool = False) -> str:
        return "-" if value is None else f"{value:{'+' if sign else ''}.2f}"

    stages = [f"{number} {task}" for number, task in enumerate(tasks, 1)]
    first = max(len(text) for text in ["after stage", *stages])
    widths = [max(len(title), 6) for title in titles]
    lines = ["  ".join(["after stage".ljust(first), *(t.rjust(w) for t, w in zip(titles, widths, strict=True))])]
    for number, stage in enumerate(stages):
        row = [_entry(matrix, number, task) if number < len(matrix) else None for task in range(len(tasks))]
        cells = [figure(value).rjust(width) for value, width in zip(row, widths, strict=True)]
        lines.append("  ".join([stage.ljust(first), *cells]))
    done = len(matrix)
    lines += [
        "",
        f"average            {figure(average(matrix)):>7}   mean after stage {done} of {len(tasks)}",
        f"backward transfer  {figure(backward_transfer(matrix), sign=True):>7}   earlier tasks: now less when just learnt",
        f"forgetting         {figure(forgetting(matrix)):>7}   earlier tasks: best so far less now",
    ]
    return "\n".join(lines) + "\n"
