"""Runs laid side by side: methods by orders, with mean and spread over seeds, as text, CSV or JSON.

`python -m continual.compare runs/order_1-* logs_and_outputs/order1_olora`, in the folder above continual/. A run whose
last stage is missing has no final figures and counts in no mean; the table says how far it came. A folder of runs
stands for the runs in it, and a run that is named twice counts once.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from continual import ContinualError, logged
from continual.logged import Run

FIGURES = {
    "average": "average",
    "backward_transfer": "backward",
    "forgetting": "forgetting",
    "forward_transfer": "forward",
}
SIGNED = ("backward_transfer", "forward_transfer")


@dataclass(frozen=True)
class Mean:
    """A figure over several runs. `spread` is the standard deviation of a sample (n - 1); None for less than two."""

    mean: float | None
    spread: float | None
    runs: int  # in which it is known

    @classmethod
    def over(cls, values: Sequence[float | None]) -> Mean:
        """The mean of what is known."""
        known = [value for value in values if value is not None]
        return cls(fmean(known) if known else None, stdev(known) if len(known) > 1 else None, len(known))

    def text(self, signed: bool) -> str:
        """`78.37 ± 0.52`; `-` where nothing is known."""
        if self.mean is None:
            return "-"
        mean = f"{self.mean:{'+' if signed else ''}.2f}"
        return mean if self.spread is None else f"{mean} ± {self.spread:.2f}"


@dataclass(frozen=True)
class Group:
    """The runs of a method on an order."""

    order: str
    method: str
    runs: tuple[Run, ...]

    @property
    def complete(self) -> int:
        """How many of them have all stages."""
        return sum(run.stages == len(run.tasks) for run in self.runs)

    def mean(self, figure: str) -> Mean:
        """A figure over the runs."""
        return Mean.over([run.figures[figure] for run in self.runs])


def groups(runs: Sequence[Run]) -> list[Group]:
    """The runs by order and method, in the order in which they were first given; built-in data stands apart."""
    found: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        found.setdefault((order_of(run), run.method), []).append(run)
    return [Group(order, method, tuple(members)) for (order, method), members in found.items()]


def order_of(run: Run) -> str:
    """The order's name, with what it was measured on where that is not the real data."""
    return f"{run.order} (built-in)" if run.builtin else run.order


@dataclass(frozen=True)
class Across:
    """A method over several orders of as many tasks on the same kind of data; the spread is between the orders."""

    method: str
    orders: tuple[str, ...]
    means: dict[str, Mean]


def over_orders(every: Sequence[Group]) -> list[Across]:
    """Each figure's mean over the orders' means, as the papers have it for orders 1 to 3 and for 4 to 6."""
    kinds: dict[tuple[str, bool, int], list[Group]] = {}
    for group in every:
        first = group.runs[0]
        kinds.setdefault((group.method, first.builtin, len(first.tasks)), []).append(group)
    return [
        Across(
            method,
            tuple(group.order for group in own),
            {figure: Mean.over([group.mean(figure).mean for group in own]) for figure in FIGURES},
        )
        for (method, _, _), own in kinds.items()
        if len(own) > 1
    ]


def notes(runs: Sequence[Run]) -> list[str]:
    """What a reader of the table must know: runs that stopped early, the same run given twice, files not read."""
    said: list[str] = []
    seen: dict[tuple[str, str, int], str] = {}
    for run in runs:
        missing = [f"{place} {run.tasks[place - 1]}" for place, row in enumerate(run.matrix, 1) if row is None]
        if missing:
            said.append(f"{run.path}: {run.stages} of {len(run.tasks)} stages; missing: {', '.join(missing)}")
        said += run.notes
        if run.seed is None:
            continue
        key = (order_of(run), run.method, run.seed)
        if key in seen:
            said.append(
                f"{run.path}: {key[0]}, {key[1]}, seed {key[2]} as {seen[key]}; both count; NAME=RUN tells them apart"
            )
        seen.setdefault(key, run.path)
    return said


def text(runs: Sequence[Run]) -> str:
    """The table for a person."""
    every = groups(runs)
    tables = [_columns([["order", "method", "runs", *FIGURES.values()], *map(_line, every)])]
    across = over_orders(every)
    if across:
        rows = [[each.method, ", ".join(each.orders), *_shown(each.means)] for each in across]
        heading = "over the orders: mean of their means, and the spread between them\n"
        tables.append(heading + _columns([["method", "orders", *FIGURES.values()], *rows]))
    words = ["mean ± standard deviation over runs; % for average, points for the rest; - is not known"]
    words += [f"note: {note}" for note in notes(runs)]
    return "\n\n".join([*tables, "\n".join(words)]) + "\n"


def _line(group: Group) -> list[str]:
    count = f"{group.complete}" if group.complete == len(group.runs) else f"{group.complete} of {len(group.runs)}"
    return [group.order, group.method, count, *_shown({figure: group.mean(figure) for figure in FIGURES})]


def _shown(means: dict[str, Mean]) -> list[str]:
    return [mean.text(figure in SIGNED) for figure, mean in means.items()]


def _columns(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    words = 2  # columns of words stand to the left, figures to the right
    return "\n".join(
        "  ".join(
            cell.ljust(width) if number < words else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def as_csv(runs: Sequence[Run]) -> str:
    """A line for each order and method; empty where unknown."""
    buffer = io.StringIO()
    rows = csv.writer(buffer, lineterminator="\n")
    rows.writerow(["order", "method", "runs", "complete", *(f"{f}{part}" for f in FIGURES for part in ("", "_spread"))])
    for group in groups(runs):
        cells: list[Any] = [group.order, group.method, len(group.runs), group.complete]
        for figure in FIGURES:
            mean = group.mean(figure)
            cells += ["" if value is None else round(value, 4) for value in (mean.mean, mean.spread)]
        rows.writerow(cells)
    return buffer.getvalue()


def as_json(runs: Sequence[Run]) -> str:
    """Everything: each run with its matrix, each group with its means."""

    def mean(value: Mean) -> dict[str, Any]:
        return {"mean": value.mean, "spread": value.spread, "runs": value.runs}

    body = {
        "schema": "continual.compare/1",
        "runs": [
            {
                **{
                    "path": run.path,
                    "order": run.order,
                    "method": run.method,
                    "seed": run.seed,
                    "built_in": run.builtin,
                },
                **{"tasks": run.tasks, "stages": run.stages, "accuracy": run.matrix},
                **run.figures,
            }
            for run in runs
        ],
        "groups": [
            {"order": group.order, "method": group.method, "runs": len(group.runs), "complete": group.complete}
            | {figure: mean(group.mean(figure)) for figure in FIGURES}
            for group in groups(runs)
        ],
        "over_orders": [
            {"method": each.method, "orders": each.orders} | {figure: mean(v) for figure, v in each.means.items()}
            for each in over_orders(groups(runs))
        ],
        "notes": notes(runs),
    }
    return json.dumps(body, indent=1, ensure_ascii=False) + "\n"


def _harmless(words: str) -> str:
    """A text for a screen: names out of files may hold escape sequences."""
    return "".join(letter if letter.isprintable() or letter == "\n" else "?" for letter in words)


def _read(words: Sequence[str]) -> tuple[list[Run], bool]:
    """The runs that the words name, each once, and whether one could not be read; what is wrong goes to stderr."""
    runs: dict[tuple[Path, str], Run] = {}
    failed = False
    for word in words:
        method, equals, path = word.partition("=")
        if not equals or not method or "/" in method:  # a path may hold the sign
            method, path = "", word
        for each in logged.found(Path(path)):
            try:
                if (key := (each.resolve(), method)) not in runs:
                    runs[key] = logged.read(each, method or None)
            except (ContinualError, OSError) as error:
                print(_harmless(f"continual: {error}"), file=sys.stderr)
                failed = True
    return list(runs.values()), failed


def main(argv: list[str] | None = None) -> int:
    """Print the comparison; 0 when all runs could be read, 1 when some could not, 2 for flags that cannot be."""
    parser = argparse.ArgumentParser(prog="python -m continual.compare", description=__doc__.split("\n")[0])
    parser.add_argument(
        "runs", nargs="+", metavar="[METHOD=]RUN", help="a run's directory, a folder of these, or O-LoRA's outputs"
    )
    parser.add_argument("--format", choices=["text", "csv", "json"], default="text")
    args = parser.parse_args(argv)
    runs, failed = _read(args.runs)
    if runs:
        shown = {"text": text, "csv": as_csv, "json": as_json}[args.format](runs)
        print(_harmless(shown) if args.format == "text" else shown, end="")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
