"""What stands on the screen while a run goes on."""

from __future__ import annotations

import pytest

from dsdoctor.cli import _run_view
from dsdoctor.cli._run_view import RunView
from dsdoctor.run.events import LineSeen, Noted, Progressed, StageDone

PROGRESS = Progressed(
    **{"stage": "dbpedia", "index": 1, "stages": 4, "step": 120, "steps": 1000, "within_epoch": False, "epoch": 0.5},
    **{"loss": 1.5, "learning_rate": 5e-05, "speed": 2.0, "seconds_left": 440.0, "silent": 1.0, "stalled": False},
    hosts={"node0": (120, 2.0), "node1": (120, 1.0)},
)
SAID = "[1/4] dbpedia  step 120/1000  loss 1.5  lr 5e-05  2 steps/s (slowest: node1, 1 steps/s)  7:20 left"


def drawn(*events: object) -> None:
    view = RunView(2)
    for event in events:
        view(event)  # type: ignore[arg-type]
    view.close()


def test_on_a_terminal_the_progress_stands_under_the_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("dsdoctor.terminal.is_terminal", lambda stream: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    drawn(PROGRESS, LineSeen("node0", 0, "step 121"), Noted("stalled: nobody moves", warning=True), StageDone("x", 1.0))
    shown = capsys.readouterr().err
    assert shown.count(SAID) == 3, "again after every line"
    assert shown.index("node0:0| step 121") < shown.rindex(SAID)
    assert "! stalled: nobody moves" in shown
    assert shown.rindex(SAID) < shown.index("x done in 1.0 s")
    assert not shown.endswith(SAID)


def test_without_a_terminal_nothing_is_added(capsys: pytest.CaptureFixture[str]) -> None:
    drawn(PROGRESS, LineSeen("node0", 0, "step 121"))
    assert capsys.readouterr().err == "  node0:0| step 121\n"


def test_names_from_a_job_cannot_move_the_cursor(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("dsdoctor.terminal.is_terminal", lambda stream: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(_run_view, "progress_line", lambda told: "\x1b[2J")
    drawn(PROGRESS)
    assert "\x1b[2J" not in capsys.readouterr().err
