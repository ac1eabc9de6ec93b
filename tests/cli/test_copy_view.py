"""Copies as they are drawn: a line a host on a terminal, a line when something is done elsewhere."""

from __future__ import annotations

import io
import sys

import pytest

from dsdoctor.cli import _copy_view
from dsdoctor.cli._copy_view import CopyView
from dsdoctor.run.events import Copying
from dsdoctor.terminal import StatusLine


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def terminal_in_place(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A screen of 60 × 6 as standard error (set by the test itself: pytest puts its own back after fixtures)."""
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("LINES", "6")
    monkeypatch.setattr(StatusLine, "drawn", 0)
    return screen


def drawn(screen: Terminal) -> list[str]:
    """What stands on the screen: lines that were taken away are not there any more."""
    lines = [""]
    text = screen.getvalue()
    while text:
        for mark, act in (("\r\x1b[2K", "clear"), ("\x1b[1A\x1b[2K", "up"), ("\n", "next")):
            if text.startswith(mark):
                text = text[len(mark) :]
                if act == "up":
                    lines.pop()
                lines = [*lines, ""] if act == "next" else [*lines[:-1], ""]
                break
        else:
            lines[-1] += text[0]
            text = text[1:]
    return [line for line in lines if line]


def test_one_line_a_host_drawn_over_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = terminal_in_place(monkeypatch)
    view = CopyView()
    view(Copying("node0", 3, "code", "1.00MB/s"))
    view(Copying("gpu-b", 0, "data", "from node0"))
    view(Copying("node0", 42, "code", "11.05MB/s"))
    assert drawn(terminal) == ["  node0  code  42 %  11.05MB/s", "  gpu-b  data   0 %  from node0"]
    view(Copying("node0", 100, "code"))
    assert drawn(terminal) == ["  code is on node0", "  gpu-b  data   0 %  from node0"]
    view(Copying("node0", 100, "code"))
    view.close()
    assert drawn(terminal) == ["  code is on node0"]


def test_more_hosts_than_the_screen_has_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = terminal_in_place(monkeypatch)
    view = CopyView()
    for number in range(9):
        view(Copying(f"node{number}", 1, "code"))
    assert drawn(terminal) == [
        "  node0  code   1 %",
        "  node1  code   1 %",
        "  node2  code   1 %",
        "  and 6 hosts more",
    ]


def test_without_a_terminal_lines_are_few_and_plain(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(_copy_view.time, "monotonic", lambda: clock[0])
    view = CopyView()
    for percent in (1, 2, 3):
        view(Copying("node0", percent, "model", "9.00MB/s"))
        clock[0] += 20
    view(Copying("no\x1bde1", 0, waiting="run a from head"))
    view(Copying("no\x1bde1", 0, waiting="run a from head"))
    view(Copying("node0", 100, "model"))
    assert capsys.readouterr().err.splitlines() == [
        "  node0  model   3 %  9.00MB/s",
        "  no\\x1bde1  waits for run a from head",
        "  model is on node0",
    ]
