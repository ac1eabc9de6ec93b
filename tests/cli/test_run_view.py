"""Drawing a run: what is shown, and that a screen that takes nothing holds nobody up."""

from __future__ import annotations

import threading
import time

import pytest

from dsdoctor.cli import _copy_view, _run_view
from dsdoctor.cli._run_view import RunView
from dsdoctor.run.events import Copying, LineSeen, Noted, RankFailed, StageDone, StageSkipped, StageStarted


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


TRACEBACK = [
    "Traceback (most recent call last):",
    '  File "train.py", line 3, in <module>',
    "    work()",
    "ValueError: the label of row 17",
]


def test_what_another_rank_raises_is_on_the_screen_while_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [LineSeen("b", 3, text, True) for text in ["step 1", *TRACEBACK, "step 2"]]
    said = drawn(monkeypatch, 2, StageStarted("one", 1, 1), *lines, RankFailed("b", 3, "ended with exit code 1"))
    assert said[1:] == [*(f"  b:3| {text}" for text in TRACEBACK), "  ! rank 3 on b ended with exit code 1"]


def test_a_chained_traceback_is_shown_whole_and_those_of_a_third_rank_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    chained = [*TRACEBACK[:3], "  raise x", "", "During handling of the above exception, another exception occurred:"]
    texts = [*chained, "", *TRACEBACK]
    said = drawn(monkeypatch, 1, *(LineSeen("a", rank, text) for text in texts for rank in (1, 2, 3)))
    assert said == [f"  {rank}| {text}" for text in texts for rank in (1, 2)]


def test_the_rank_that_is_heard_to_fail_is_named_with_its_last_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [LineSeen("b", 3, f"line {number}") for number in range(20)]
    failures = [RankFailed("b", 3, "was killed by SIGKILL"), RankFailed("a", 1, "ended with exit code 1")]
    said = drawn(monkeypatch, 2, *lines, *failures)
    assert said[0] == "  ! rank 3 on b was killed by SIGKILL; its last lines:"
    assert said[1:] == [f"  b:3| line {number}" for number in range(10, 20)]
    again = drawn(monkeypatch, 2, failures[0], StageStarted("one", 1, 1), failures[1])
    assert again[-1] == "  ! rank 1 on a ended with exit code 1", "another attempt, another first"
    assert drawn(monkeypatch, 1, LineSeen("a", 0, "x"), RankFailed("a", 0, "ended with exit code 1"))[1:] == [
        "  ! rank 0 on a ended with exit code 1"
    ], "its lines are there already"


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
