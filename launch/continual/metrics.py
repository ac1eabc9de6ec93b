"""What a run is judged by: the accuracy matrix, average, backward and forward transfer, forgetting; the files of these.

`matrix[k][i]` is the accuracy in per cent on task i after stage k (both from 0); a row is None where a stage is
missing, and an entry is None or not there where a task was not measured. The definitions are those of GEM
(arXiv 1706.08840) for the average and the transfers, and of arXiv 1801.10112 for forgetting.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

from continual.orders import PUBLISHED

if TYPE_CHECKING:
    from continual.data import Task
    from continual.orders import Order
    from continual.stages import State
    from continual.trainer import Result

Row = Sequence["float | None"]
Matrix = Sequence["Row | None"]


def entry(matrix: Matrix, stage: int, task: int) -> float | None:
    """The accuracy on a task after a stage, or None where it is not known."""
    row = matrix[stage] if stage < len(matrix) else None
    return row[task] if row is not None and task < len(row) else None


def _mean(values: list[float | None]) -> float | None:
    """The mean, or None when there is nothing or something is missing: a mean of the rest would pass for the whole."""
    known = [value for value in values if value is not None]
    return fmean(known) if known and len(known) == len(values) else None


def average(matrix: Matrix) -> float | None:
    """The mean accuracy over the tasks seen, after the last stage, in per cent."""
    last = len(matrix) - 1
    return _mean([entry(matrix, last, task) for task in range(last + 1)])


def backward_transfer(matrix: Matrix) -> float | None:
    """The mean over the earlier tasks of (accuracy at the end - accuracy right after learning), in points."""
    last = len(matrix) - 1
    changes: list[float | None] = []
    for task in range(last):
        learnt, kept = entry(matrix, task, task), entry(matrix, last, task)
        changes.append(None if learnt is None or kept is None else kept - learnt)
    return _mean(changes)


def forgetting(matrix: Matrix) -> float | None:
    """The mean over the earlier tasks of (best accuracy before the last stage - accuracy at the end), in points."""
    last = len(matrix) - 1
    losses: list[float | None] = []
    for task in range(last):
        before = [value for stage in range(last) if (value := entry(matrix, stage, task)) is not None]
        kept = entry(matrix, last, task)
        losses.append(None if not before or kept is None else max(before) - kept)
    return _mean(losses)


def forward_transfer(matrix: Matrix, untrained: Row, ahead: Row) -> float | None:
    """The mean over the later tasks of (accuracy just before it is learnt - accuracy of the bare model), in points.

    `untrained` and `ahead` are those two accuracies, task by task; the first task has no stage before it.
    """

    def known(row: Row, task: int) -> float | None:
        return row[task] if task < len(row) else None

    gains: list[float | None] = []
    for task in range(1, len(matrix)):
        before, bare = known(ahead, task), known(untrained, task)
        gains.append(None if before is None or bare is None else before - bare)
    return _mean(gains)


def table(matrix: Matrix, tasks: Sequence[str], titles: Sequence[str], forward: float | None = None) -> str:
    """The matrix as text, a line a stage and a column a task, with the figures under it; `-` where unknown.

    `tasks` are all tasks of the order, so that a table in the middle of a run shows what is to come; `titles` are
    what stands over the columns: the tasks, and below each what stands in for it.
    """

    def figure(value: float | None, sign: bool = False) -> str:
        return "-" if value is None else f"{value:{'+' if sign else ''}.2f}"

    stages = [f"{number} {task}" for number, task in enumerate(tasks, 1)]
    first = max(len(text) for text in ["after stage", *stages])
    under = [title.removeprefix(task).strip() for title, task in zip(titles, tasks, strict=True)]
    widths = [max(len(task), len(below), 6) for task, below in zip(tasks, under, strict=True)]
    heads = [["after stage", *tasks], *([["", *under]] if any(under) else [])]
    lines = ["  ".join([head.ljust(first), *map(str.rjust, cells, widths)]).rstrip() for head, *cells in heads]
    for number, stage in enumerate(stages):
        row = [entry(matrix, number, task) for task in range(len(tasks))]
        cells = [figure(value).rjust(width) for value, width in zip(row, widths, strict=True)]
        lines.append("  ".join([stage.ljust(first), *cells]))
    lines += [
        "",
        f"average            {figure(average(matrix)):>7}   tasks learnt by stage {len(matrix)} of {len(tasks)}",
        f"backward transfer  {figure(backward_transfer(matrix), sign=True):>7}   earlier tasks, since they were learnt",
        f"forgetting         {figure(forgetting(matrix)):>7}   earlier tasks, since they were best",
    ]
    if forward is not None:
        lines.append(f"forward transfer   {figure(forward, sign=True):>7}   later tasks, before they are learnt")
    return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Figures:
    """What a stage's files of figures are about; `base` names the base model."""

    order: Order
    tasks: Sequence[Task]
    state: State
    base: str
    answers: Sequence[Sequence[Any]] = ()  # to the held-out examples of each task: texts, or places of labels

    @property
    def titles(self) -> list[str]:
        """The order's tasks with what stands in for them."""
        builtin = any(task.stand_in and not self.order.names_data_of(task.name) for task in self.tasks)
        return [self.order.title(task, builtin) for task in self.order.tasks]


def result_files(figures: Figures, trained: Result, measured: float) -> dict[str, str]:
    """The files of figures that a stage leaves, by name; those of O-LoRA's program have its names and keys.

    `measured` is how many seconds the measuring took.
    """
    order, tasks, state = figures.order, figures.tasks, figures.state
    train = {
        "epoch": round(trained.samples / len(tasks[-1].train), 2),
        "train_loss": round(trained.loss, 4),
        "train_runtime": round(trained.seconds, 2),
        "train_samples": len(tasks[-1].train),
        "train_samples_per_second": round(trained.samples / trained.seconds, 2),
        "train_steps_per_second": round(trained.steps / trained.seconds, 2),
    }
    row = state.matrix[-1]
    predict: dict[str, Any] = {
        "predict_exact_match": round(fmean(row), 4),
        **{f"predict_exact_match_for_{task.name}": value for task, value in zip(tasks, row, strict=True)},
        "predict_runtime": round(measured, 2),
        "predict_samples": sum(len(task.test) for task in tasks),
    }
    results = {
        **{"order": state.order, "method": state.method, "seed": state.seed},
        "tasks": list(order.tasks),
        "stand_ins": {task.name: task.stand_in for task in tasks if task.stand_in},
        "accuracy": state.matrix,
        "average": average(state.matrix),
        "backward_transfer": backward_transfer(state.matrix),
        "forgetting": forgetting(state.matrix),
        "forward_transfer": forward_transfer(state.matrix, state.untrained, state.ahead),  # null: not measured
        **{"untrained": state.untrained, "ahead": state.ahead},
        "held_out": {task.name: len(task.test) for task in tasks},
        "left_out": {task.name: task.left_out for task in tasks if task.left_out},
    }
    values = {"train": train, "predict": predict, "all": train | predict}
    files = {f"{name}_results.json": value for name, value in values.items()} | {"results.json": results}
    files["trainer_state.json"] = {
        **{"epoch": train["epoch"], "global_step": trained.steps, "max_steps": trained.steps},
        "log_history": [*trained.history, {"step": trained.steps, **train}],
    }
    texts = {name: json.dumps(value, indent=2) + "\n" for name, value in files.items()}
    return (
        texts
        | {"summary.txt": _summary(figures), "accuracy.csv": csv_table(state.matrix, order.tasks)}
        | _pictures(figures)
        | ({"predict_eval_predictions.jsonl": _predictions(figures)} if figures.answers else {})
    )


def _predictions(figures: Figures) -> str:
    """Every held-out example with its answer, a line each, under the keys of O-LoRA's program."""
    lines = []
    for task, answers in zip(figures.tasks, figures.answers, strict=True):
        instruction = task.asking.template(task.labels)
        for number, ((sentence, label), answer) in enumerate(zip(task.test, answers, strict=True)):
            wanted = task.labels[label]
            instance = {"id": str(number), "sentence": sentence, "label": wanted, "ground_truth": wanted}
            line = {
                "Task": task.asking.group,
                "Dataset": task.asking.dataset,
                "Instance": instance | {"instruction": instruction},
                "Prediction": task.labels[answer] if isinstance(answer, int) else answer,
            }
            lines.append(json.dumps(line) + "\n")
    return "".join(lines)


def csv_table(matrix: Matrix, tasks: Sequence[str]) -> str:
    """The matrix as CSV, a line a stage and a column a task; empty where unknown."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["stage", "task", *tasks])
    for number in range(len(matrix)):
        cells = (entry(matrix, number, task) for task in range(len(tasks)))
        rows.writerow([number + 1, tasks[number], *("" if cell is None else cell for cell in cells)])
    return text.getvalue()


def _pictures(figures: Figures) -> dict[str, str]:
    from continual import drawing

    stages = [f"{number} {task}" for number, task in enumerate(figures.order.tasks, 1)]
    return {
        "accuracy.svg": drawing.heat_map(figures.state.matrix, stages, figures.titles),
        "curves.svg": drawing.curves(figures.state.matrix, stages, figures.titles),
    }


def _summary(figures: Figures) -> str:
    """The table of all stages so far, and what it was made with."""
    order, tasks, state = figures.order, figures.tasks, figures.state
    lines = [
        f"{state.order}, {state.method}, seed {state.seed}: accuracy in % on held-out examples",
        f"base model {figures.base}",
    ]
    if any(task.stand_in and not order.names_data_of(task.name) for task in tasks):
        lines.append("In brackets the small built-in task that was trained and measured in the place of the named one.")
    elif any(task.stand_in for task in tasks):
        lines.append("In brackets the built-in task that the order names.")
    for task in tasks:
        published = PUBLISHED.get(task.name)
        if published and not task.stand_in and len(task.test) != published[1]:
            lines.append(f"{task.name}: {len(task.test)} held-out examples; O-LoRA's logs have {published[1]}")
    forward = forward_transfer(state.matrix, state.untrained, state.ahead)
    return "\n".join(lines) + "\n\n" + table(state.matrix, order.tasks, figures.titles, forward)
