"""The options by which a run is watched, and its progress in one line."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from dsdoctor.cli._watching import limits_of, progress_line, watch_options
from dsdoctor.run.stage_end import Limits, Watching

BASE = {
    **{"index": 1, "stages": 3, "stage": "dbpedia", "step": 120, "steps": 1000, "within_epoch": False, "epoch": 0.5},
    **{"loss": 1.23456, "learning_rate": 5e-05, "speed": 2.0, "seconds_left": 440.0, "silent": 1.0, "stalled": False},
    "hosts": {"node0": (120, 2.0)},
}


def parsed(*words: str) -> Limits | str:
    found: list[Limits] = []

    def command(**options: object) -> None:
        found.append(limits_of(20.0, options))

    decorated = command
    for option in watch_options():
        decorated = option(decorated)
    done = CliRunner().invoke(click.command()(decorated), words)
    return found[0] if found else done.output


def test_options_become_limits() -> None:
    assert parsed() == Limits(lifeline=20.0)
    assert parsed("--stall-after", "off") == Limits(lifeline=20.0, watching=Watching(0.0))
    assert parsed("--stall-after", "90", "--stop-on-stall", "--retries", "2") == Limits(
        lifeline=20.0, watching=Watching(90.0, True), retries=2
    )


@pytest.mark.parametrize("value", ["0", "-3", "nan", "inf", "1e99", "soon", ""])
def test_what_is_no_time_is_refused(value: str) -> None:
    told = parsed("--stall-after", value)
    assert isinstance(told, str)
    assert f"{value!r} is not a number of seconds from 1 on, nor off" in told


def test_the_line_of_a_run() -> None:
    assert progress_line(BASE) == ("[1/3] dbpedia  step 120/1000  loss 1.235  lr 5e-05  2 steps/s  7:20 left")


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({"step": None, "steps": None, "speed": None, "seconds_left": None}, "epoch 0.5  loss 1.235"),
        ({"within_epoch": True, "epoch": 3.0, "seconds_left": None}, "epoch 3  step 120/1000"),
        ({"steps": None}, "step 120  loss"),
        ({"loss": float("nan")}, "loss nan"),
        ({"loss": "nan"}, "loss nan"),  # as the file has it
        ({"speed": 0.025}, "40 s/step"),
        ({"seconds_left": 400_000.0}, "4 d 15 h left"),
        ({"seconds_left": 4000.0}, "1:06:40 left"),
        ({"stalled": True, "silent": 75.0}, "STALLED, silent for 1:15"),
        ({"hosts": {"a": (9, 2.0), "b": (9, 1.5)}}, "2 steps/s (slowest: b, 1.5 steps/s)"),
        ({"hosts": {"a": {"step": 9, "speed": 2.0}, "b": {"step": 9, "speed": 0.5}}}, "(slowest: b, 2 s/step)"),
    ],
)
def test_the_line_says_what_is_known(change: dict[str, object], wanted: str) -> None:
    assert wanted in progress_line({**BASE, **change})


def test_hosts_that_are_about_as_fast_are_not_named() -> None:
    assert "slowest" not in progress_line({**BASE, "hosts": {"a": (9, 2.0), "b": (9, 1.8), "c": (9, None)}})
