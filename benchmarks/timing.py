"""Whole processes timed in turn (A B A B …), so that a machine whose speed drifts is the same to both."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Timed:
    """What one command cost: seconds of wall clock of every counted run, and its largest resident size in MiB."""

    name: str
    seconds: tuple[float, ...]
    peak_mib: float

    @property
    def median(self) -> float:
        """The median of the wall times, in seconds."""
        return statistics.median(self.seconds)


def side_by_side(commands: Mapping[str, Sequence[str]], runs: int = 5, warmup: int = 1) -> list[Timed]:
    """Time the commands in turn; their output goes nowhere. A command that cannot be started is an error."""
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    peaks = dict.fromkeys(commands, 0.0)
    for number in range(warmup + runs):
        for name, argv in commands.items():
            taken, peak = _once(argv)
            if number >= warmup:
                seconds[name].append(taken)
                peaks[name] = max(peaks[name], peak)
    return [Timed(name, tuple(seconds[name]), peaks[name]) for name in commands]


def _once(argv: Sequence[str]) -> tuple[float, float]:
    began = time.perf_counter()
    process = subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=_environment()
    )
    _, _, usage = os.wait4(process.pid, 0)
    return time.perf_counter() - began, usage.ru_maxrss / 1024


def _environment() -> dict[str, str]:
    """The environment with this interpreter's folder first, so that `ds_report` is the one beside it."""
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}"}


def table(results: Sequence[Timed], against: str) -> str:
    """A Markdown table: median, fastest, slowest, memory, and the ratio to one of the rows."""
    base = next(result.median for result in results if result.name == against)
    lines = [f"| command | median s | fastest | slowest | MiB | × {against} |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {result.name} | {result.median:.3f} | {min(result.seconds):.3f} | {max(result.seconds):.3f} "
        f"| {result.peak_mib:.0f} | {result.median / base:.2f} |"
        for result in results
    ]
    return "\n".join(lines)
