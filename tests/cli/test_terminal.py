"""Printing: whole files or none, links followed, pipes written to, plain where nobody sees colour."""

from __future__ import annotations

import io
import os
import sys
import threading
from pathlib import Path

import pytest

from dsdoctor.terminal import StatusLine, deliver, look_of, say, status_line
from dsdoctor.yamlfile import FileError


class Screen(io.TextIOWrapper):
    """A stream that says it is a terminal."""

    def __init__(self, encoding: str = "utf-8") -> None:
        super().__init__(io.BytesIO(), encoding=encoding)

    def isatty(self) -> bool:
        return True

    def shown(self) -> str:
        self.flush()
        return self.buffer.getvalue().decode()


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    deliver("new", str(tmp_path / "link"))
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new\n"


def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    got: list[str] = []
    reader = threading.Thread(target=lambda: got.append((tmp_path / "pipe").read_text()))
    reader.start()
    deliver("text", str(tmp_path / "pipe"))
    reader.join(10)
    assert got == ["text\n"]


def test_a_dash_is_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    deliver("text", "-")
    assert capsys.readouterr().out == "text\n"


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "file").write_text("old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fchmod", full)
    with pytest.raises(FileError, match="No space left on device"):
        deliver("new", str(folder / "file"))
    assert [path.name for path in folder.iterdir()] == ["file"]
    assert (folder / "file").read_text() == "old"


def test_text_that_no_file_can_hold_is_written_out(tmp_path: Path) -> None:
    deliver("\udcff", str(tmp_path / "file"))
    assert (tmp_path / "file").read_text() == "\\udcff\n"


@pytest.mark.parametrize(
    ("tty", "environment", "color"),
    [
        (True, {"TERM": "xterm"}, True),
        (True, {"TERM": "dumb"}, False),
        (True, {"TERM": "xterm", "NO_COLOR": "1"}, False),
        (True, {"TERM": "xterm", "NO_COLOR": ""}, True),
        (False, {"TERM": "xterm"}, False),
        (False, {"TERM": "xterm", "FORCE_COLOR": "1"}, True),
        (False, {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
    ],
)
def test_colour(tty: bool, environment: dict[str, str], color: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TERM", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    stream = Screen() if tty else io.StringIO()
    assert look_of(stream).color is color
    assert (look_of(stream).width is not None) is tty


@pytest.mark.parametrize(("encoding", "can"), [("utf-8", True), ("ascii", False), ("latin-1", False)])
def test_signs_fall_back_to_ascii(encoding: str, can: bool) -> None:
    assert look_of(Screen(encoding)).unicode is can


def test_the_status_line_is_gone_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "20")
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    with pytest.raises(RuntimeError), status_line() as line:
        line.show("x" * 50)
        raise RuntimeError
    assert screen.shown() == "\r\x1b[2K" + "x" * 19 + "\r\x1b[2K"


def test_a_remark_takes_the_status_line_away_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    with status_line() as line:
        line.show("waiting")
        say("a remark")
    assert "\r\x1b[2Kwaiting\r\x1b[2Ka remark\n" in screen.shown()


def test_no_status_line_where_nobody_sees_it(capsys: pytest.CaptureFixture[str]) -> None:
    line = StatusLine()
    line.show("waiting")
    line.clear()
    assert capsys.readouterr().err == ""


def test_a_standard_error_that_is_gone_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stderr", Gone())
    say("nobody hears this")
