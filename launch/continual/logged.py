"""What a run has measured, read from the files it left: a run of dsdoctor's, or the outputs of O-LoRA's program.

Both have a folder a stage, `k-TASK`: below `outputs/` of the run's directory, or of `logs_and_outputs/order_1`. Ours
holds results.json with the whole matrix; theirs all_results.json, or predict_results.json alone, with
`predict_exact_match_for_<task>` of its stage.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from continual import ContinualError, metrics
from continual.orders import ORDERS

STAGE = re.compile(r"([1-9][0-9]{0,3})-(.+)")
_NAMED = re.compile(r"(?:order_?[0-9]+|long)_(.+)")  # order1_olora: the method of an order
MOST_BYTES = 1 << 24
OURS = "results.json"
THEIRS = ("all_results.json", "predict_results.json")
EXACT_MATCH = "predict_exact_match_for_"


@dataclass(frozen=True)
class Run:
    """A run's figures. `matrix` has a row for every task of the order, None where the stage is missing."""

    path: str
    order: str
    method: str
    seed: int | None
    tasks: tuple[str, ...]
    matrix: tuple[tuple[float | None, ...] | None, ...]
    builtin: bool = False  # measured on built-in data that stands in for the named tasks
    untrained: tuple[float | None, ...] = ()
    ahead: tuple[float | None, ...] = ()
    notes: tuple[str, ...] = field(default=(), compare=False)

    @property
    def stages(self) -> int:
        """How many stages have been measured."""
        return sum(row is not None for row in self.matrix)

    @property
    def figures(self) -> dict[str, float | None]:
        """The figures by name; None for what is not known, as all of them are while the last stage is missing."""
        return {
            "average": metrics.average(self.matrix),
            "backward_transfer": metrics.backward_transfer(self.matrix),
            "forgetting": metrics.forgetting(self.matrix),
            "forward_transfer": metrics.forward_transfer(self.matrix, self.untrained, self.ahead),
        }


def read(path: Path, method: str | None = None) -> Run:
    """The figures of a run; `method` names it where its files do not.

    Raises:
        ContinualError: no folder of that kind, or none of its files can be used.
    """
    base = _base(path)
    folders = _stages(base)
    if not folders:
        raise ContinualError(f"{path}: {_instead(path, base)}; wanted a run's directory, or O-LoRA's outputs")
    notes: list[str] = []
    ours = {place: _object(folder / OURS, notes) for place, (folder, _) in folders.items()}
    own = {place: value for place, value in ours.items() if value is not None}
    run = _own(path, own, method, notes) if own else _original(path, folders, method, notes)
    if not run.stages:
        said = "".join(f"\n  {note}" for note in notes)
        raise ContinualError(f"{path}: no stage has {OURS}, {' or '.join(THEIRS)} that can be used{said}")
    return run


def found(path: Path) -> list[Path]:
    """The runs that a path means: itself, or where it is a folder of runs, those below it by name."""
    try:
        if not path.is_dir() or _stages(_base(path)):
            return [path]
        return [each for each in sorted(path.iterdir()) if _is_run(each)] or [path]
    except (OSError, ContinualError):
        return [path]  # reading it says what is wrong


def _is_run(path: Path) -> bool:
    """Whether a folder is a run, and not one in which something else of each stage is kept, such as its logs."""
    base = _base(path)
    measured = (folder / name for folder, _ in _stages(base).values() for name in (OURS, *THEIRS))
    return (base != path and bool(_stages(base))) or any(file.is_file() for file in measured)


def _base(path: Path) -> Path:
    return path / "outputs" if (path / "outputs").is_dir() else path


def _instead(path: Path, base: Path) -> str:
    """What a path is that is no run."""
    if not path.exists():
        return "no such folder"
    if not path.is_dir():
        return "a file"
    if STAGE.fullmatch(path.absolute().name) and any((path / name).exists() for name in (OURS, *THEIRS)):
        run = path.absolute().parent
        return f"one stage of a run; give {run.parent if run.name == 'outputs' else run}"
    return f"no folder 1-TASK in {base}"


def _stages(base: Path) -> dict[int, tuple[Path, str]]:
    """The stages' folders and tasks by place, from 1."""
    if not base.is_dir():
        return {}
    stages: dict[int, tuple[Path, str]] = {}
    for folder in sorted(base.iterdir()):
        match = STAGE.fullmatch(folder.name)
        if match is None or not folder.is_dir():
            continue
        place = int(match[1])
        if place in stages:
            raise ContinualError(f"{base}: two folders of stage {place}: {stages[place][0].name} and {folder.name}")
        stages[place] = (folder, match[2])
    return dict(sorted(stages.items()))


def _object(path: Path, notes: list[str]) -> dict[str, Any] | None:
    """The object that a JSON file holds; None, and a note, where it cannot be used; None alone where it is missing."""
    try:
        if path.stat().st_size > MOST_BYTES:
            notes.append(f"{path}: longer than {MOST_BYTES >> 20} MiB, not read")
            return None
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        notes.append(f"{path}: cannot be read: {error}")
        return None
    if not isinstance(value, dict):
        notes.append(f"{path}: holds {type(value).__name__}; wanted an object")
        return None
    return value


def _own(path: Path, values: Mapping[int, dict[str, Any]], method: str | None, notes: list[str]) -> Run:
    """A run of this package: the last stage's file has the rows of all stages."""
    last = values[max(values)]
    tasks = last.get("tasks")
    if not isinstance(tasks, list) or not tasks or not all(isinstance(task, str) for task in tasks):
        raise ContinualError(f"{path}: results.json of stage {max(values)}: tasks is {tasks!r}; wanted a list of names")
    rows = last.get("accuracy")
    rows = rows if isinstance(rows, list) else []
    seed = last.get("seed")
    return Run(
        path=str(path),
        order=_word(last.get("order")) or "?",
        method=method or _word(last.get("method")) or path.name,
        seed=seed if isinstance(seed, int) else None,
        tasks=tuple(tasks),
        matrix=tuple(_row(rows[place] if place < len(rows) else None, place + 1) for place in range(len(tasks))),
        builtin=bool(last.get("stand_ins")),
        untrained=_row(last.get("untrained"), len(tasks)) or (),
        ahead=_row(last.get("ahead"), len(tasks)) or (),
        notes=tuple(notes),
    )


def _original(path: Path, folders: Mapping[int, tuple[Path, str]], method: str | None, notes: list[str]) -> Run:
    """A run of O-LoRA's program, or of one that kept its files."""
    known = {place: task for place, (_, task) in folders.items()}
    order, tasks = _order_of(known)
    matrix: list[tuple[float | None, ...] | None] = []
    for place in range(1, len(tasks) + 1):
        value = _theirs(folders[place][0], notes) if place in folders else None
        row = _row([value.get(EXACT_MATCH + task) for task in tasks[:place]], place) if value is not None else None
        matrix.append(row)
    name = path.parent.name if path.name == "outputs" else path.name
    named = _NAMED.fullmatch(name)
    return Run(
        path=str(path),
        order=order or name,
        method=method or (named[1] if named else name),
        seed=None,
        tasks=tasks,
        matrix=tuple(matrix),
        notes=tuple(notes),
    )


def _theirs(folder: Path, notes: list[str]) -> dict[str, Any] | None:
    """The figures of a stage of theirs: all_results.json, else predict_results.json, which holds the same of them."""
    for name in THEIRS:
        if (value := _object(folder / name, notes)) is not None:
            return value
    return None


def _order_of(known: Mapping[int, str]) -> tuple[str | None, tuple[str, ...]]:
    """The one order in which these tasks stand at these places, with all its tasks; else the tasks that are known."""
    fitting = [
        (order, tasks)
        for order, tasks in ORDERS.items()
        if all(place <= len(tasks) and tasks[place - 1] == task for place, task in known.items())
    ]
    if len(fitting) == 1:
        return fitting[0]
    return None, tuple(known.get(place, f"stage {place}") for place in range(1, max(known) + 1))


def _row(values: object, length: int) -> tuple[float | None, ...] | None:
    """A row of the matrix; None where there is none, or nothing in it is a number."""
    if not isinstance(values, list):
        return None
    row = tuple(float(v) if _is_figure(v) else None for v in values[:length])
    return row if any(value is not None for value in row) else None


def _is_figure(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _word(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
