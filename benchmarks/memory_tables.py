"""The tables of `benchmarks.memory_forecast`, and their record as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.memory_forecast import EVALUATIONS, MIB, SETTINGS, Row, rows
from benchmarks.memory_ranks import Together, together
from dsdoctor.jobs.forecast.memory import forecast
from tests.forecast.elsewhere import BERTS, GIB, QWENS

_RELEASES = ("torch", "transformers", "deepspeed", "accelerate", "peft")


def tables(record: str | None = None) -> str:
    """Runs everything and gives the tables; with a path the figures are written there, too."""
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    alone, two, elsewhere = list(rows((*SETTINGS, *EVALUATIONS))), list(together()), list(published())
    if record is not None:
        releases = {name: version(name) for name in _RELEASES}
        body = {"releases": releases, "one process": [asdict(row) for row in alone]}
        body |= {"two ranks": [asdict(row) for row in two], "published": elsewhere}
        Path(record).write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")
    return "\n".join([*_alone(alone), "", *_two(two), "", *_elsewhere(elsewhere)])


def published() -> Iterator[dict[str, Any]]:
    """What others measured on GPUs, beside the forecast; sizes in bytes."""
    for name, shape, training, seen in (*BERTS, *QWENS):
        found = forecast(shape, training)
        yield {"name": name, "seen": round(seen), "least": found.least, "most": found.most}


def _alone(found: Sequence[Row]) -> Iterator[str]:
    yield "| training | measured MiB | forecast MiB | error | DeepSpeed ZeRO-2, 1 card | accelerate, Adam |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: |"
    for row in found:
        rest = " | ".join(_beside(value, row.measured) for value in (row.deepspeed, row.accelerate))
        yield f"| {row.name} | {_figures(row)} | {rest} |"
    yield ""
    yield _summary([row.error for row in found])


def _two(found: Sequence[Together]) -> Iterator[str]:
    yield "| two ranks | measured MiB | forecast MiB | error | DeepSpeed's estimator |"
    yield "| --- | ---: | ---: | ---: | ---: |"
    for row in found:
        yield f"| {row.name} | {_figures(row)} | {_beside(row.estimator, row.measured)} |"
    yield ""
    yield _summary([row.error for row in found])


def _elsewhere(found: Sequence[dict[str, Any]]) -> Iterator[str]:
    yield "| published | seen GiB | forecast GiB | error of the middle |"
    yield "| --- | ---: | ---: | ---: |"
    errors = []
    for row in found:
        errors.append((row["least"] + row["most"]) / 2 / row["seen"] - 1)
        span = f"{row['least'] / GIB:.1f} to {row['most'] / GIB:.1f}"
        yield f"| {row['name']} | {row['seen'] / GIB:.1f} | {span} | {100 * errors[-1]:+.0f} % |"
    yield ""
    within = sum(row["least"] <= row["seen"] <= row["most"] for row in found)
    yield f"{_summary(errors)} {within} of {len(found)} lie in the range."


def _figures(row: Row | Together) -> str:
    return f"{row.measured / MIB:.1f} | {row.forecast / MIB:.1f} | {100 * row.error:+.1f} %"


def _summary(errors: Sequence[float]) -> str:
    ordered = sorted(abs(error) for error in errors)
    return f"Median error {100 * ordered[len(ordered) // 2]:.1f} %, worst {100 * ordered[-1]:.1f} %."


def _beside(value: int | None, measured: int) -> str:
    return "" if value is None else f"{value / MIB:.1f} ({100 * (value / measured - 1):+.0f} %)"
