"""A log pasted at a real terminal: how to end it is said, lines of any length arrive, the terminal is put back."""

import json
import os
import pty
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator

import pytest

CAUSE = "[rank3]: RuntimeError: CUDA out of memory. Tried to allocate 2.00 GiB"


class Session:
    """`dsdoctor diagnose` at a terminal of its own; what it prints is read all the time, as a terminal does."""

    def __init__(self) -> None:
        self.terminal, tty = pty.openpty()
        self.before = termios.tcgetattr(tty)
        self.tty = tty
        self.running = subprocess.Popen(
            [sys.executable, "-m", "dsdoctor", "diagnose", "--format", "json"],
            stdin=tty,
            stdout=subprocess.PIPE,
            stderr=tty,
            start_new_session=True,
        )
        self.shown = bytearray()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                self.shown += os.read(self.terminal, 65536)
            except OSError:
                return

    def wait_for(self, text: bytes) -> None:
        began = time.monotonic()
        while text not in self.shown:
            assert time.monotonic() - began < 30, bytes(self.shown)
            time.sleep(0.01)

    def wait_until_unedited(self) -> None:
        began = time.monotonic()
        while termios.tcgetattr(self.tty)[3] & termios.ICANON:
            assert time.monotonic() - began < 30
            time.sleep(0.01)

    def paste(self, data: bytes) -> None:
        while data:
            data = data[os.write(self.terminal, data[:2000]) :]

    def answer(self) -> dict[str, object]:
        out, _ = self.running.communicate(timeout=30)
        verdict: dict[str, object] = json.loads(out)["verdict"]
        return verdict

    def close(self) -> None:
        if self.running.poll() is None:
            self.running.kill()
            self.running.wait()
        for descriptor in (self.tty, self.terminal):
            os.close(descriptor)


@pytest.fixture
def session() -> Iterator[Session]:
    started = Session()
    started.wait_for(b"Paste the log here, then press Enter and Ctrl-D. (Ctrl-C leaves.)")
    started.wait_until_unedited()
    yield started
    started.close()


def test_a_paste_is_diagnosed_and_the_terminal_put_back(session: Session) -> None:
    session.paste(b"step 1\r" + CAUSE.encode() + b"\r")  # a terminal sends Enter for the end of a line
    session.paste(b"\x04")
    assert session.answer()["cause"] == "cuda-oom"
    assert termios.tcgetattr(session.tty) == session.before


def test_ctrl_d_ends_a_paste_whose_last_line_is_not_ended_and_may_be_pressed_twice(session: Session) -> None:
    session.paste(CAUSE.encode())
    session.paste(b"\x04\x04")
    assert session.answer()["cause"] == "cuda-oom"


def test_a_line_longer_than_a_terminal_edits_arrives_whole(session: Session) -> None:
    line = json.dumps({"message": "x" * 20_000, "exc_info": f"Traceback (most recent call last):\n{CAUSE}"})
    session.paste(line.encode() + b"\r\x04")
    verdict = session.answer()
    assert (verdict["cause"], verdict["rank"], verdict["line"]) == ("cuda-oom", 3, 1)


def test_ctrl_d_amid_a_paste_does_not_end_it(session: Session) -> None:
    session.paste(b"step 1\rstep 2\x04step 3\r" + CAUSE.encode() + b"\r")
    session.paste(b"\x04")
    assert session.answer()["line"] == 3


def test_ctrl_c_leaves_and_puts_the_terminal_back(session: Session) -> None:
    session.paste(b"step 1\r")
    session.running.send_signal(signal.SIGINT)
    session.running.wait(timeout=30)
    assert session.running.returncode == 130
    assert termios.tcgetattr(session.tty) == session.before


def test_nothing_pasted_is_said(session: Session) -> None:
    session.paste(b"\x04")
    session.running.wait(timeout=30)
    session.wait_for(b"there is nothing in it")
    assert session.running.returncode == 2
