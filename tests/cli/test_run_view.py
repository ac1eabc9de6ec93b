"""Drawing a run: what is shown, and that a screen that takes nothing holds nobody up."""

from __future__ import annotations

import threading
import time

import pytest

from dsdoctor.cli import _copy_view, _run_view
from dsdoctor.cli._run_view import RunView
from dsdoctor.run.events import Copying, LineSeen, Noted, StageDone, StageSkipped, StageStarted


def drawn(monkeypatch: pytest.MonkeyPatch, hosts: int, *events: object) -> list[str]:
    said: list[str] = []
    monkeypatch.setattr(_run_view, "say", said.append)
    view = RunView(hosts)
    for event in events:
        view(event)  # type: ignore[arg-type]
    view.close()
    return said


def test_rank_0_and_the_launchers_are_shown_and_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    said = drawn(
        monkeypatch,
        2,
        StageSkipped("one", 1, 2),
        StageStarted("two", 2, 2),
        LineSeen("a", 0, "loss 1.0\x1b[2J"),
        LineSeen("b", 1, "not shown"),
        LineSeen("b", None, "torchrun says"),
        LineSeen("a", 0, "x" * 5000),
        Noted("stopping b", warning=True),
        StageDone("two", 1.25),
    )
    assert said[:4] == ["\n[1/2] one: done before", "\n[2/2] two", "  a:0| loss 1.0\\x1b[2J", "  b| torchrun says"]
    assert len(said[4]) < 2100
    assert said[5:] == ["  ! stopping b", "      two done in 1.2 s"]


def test_copies_from_many_threads_are_drawn_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(_copy_view, "say", said.append)
    monkeypatch.setattr(_run_view, "say", said.append)
    view = RunView(8)
    threads = [
        threading.Thread(target=lambda name=f"h{number}": [view(Copying(name, percent)) for percent in range(101)])
        for number in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    view.close()
    assert sorted(said) == [f"  code is on h{number}" for number in range(8)]


def test_a_screen_that_takes_nothing_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = threading.Event()
    said: list[str] = []

    def stuck(text: str) -> None:
        taken.wait(20)
        said.append(text)

    monkeypatch.setattr(_run_view, "say", stuck)
    view = RunView(1)
    began = time.monotonic()
    for number in range(5000):
        view(LineSeen("a", 0, f"line {number}"))
    assert time.monotonic() - began < 5
    taken.set()
    view.close()
    assert said[0] == "  0| line 0"
    assert "lines were not shown; the logs have them" in said[-1]
