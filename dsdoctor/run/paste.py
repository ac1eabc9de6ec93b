"""A log that is pasted at a terminal.

A terminal that edits lines keeps 4,095 bytes of each and throws the rest away, which cuts records of JSON and long
messages of NCCL; while a log is pasted it does not edit lines, and Ctrl-D ends the paste wherever it is pressed.
"""

from __future__ import annotations

import os
import select
from types import TracebackType
from typing import IO, Any

END = b"\x04"  # Ctrl-D
PATIENCE = 0.2  # seconds after Ctrl-D: pressed once more it would end the shell, and it may stand amid a paste
CHUNK = 1 << 16  # bytes


class Paste:
    """The bytes that come in at a terminal, up to Ctrl-D; the terminal is put back afterwards."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._file = stream.fileno()
        self._before: list[Any] | None = None
        self._ended = False

    def __enter__(self) -> Paste:
        try:
            import termios
        except ImportError:  # no Unix: the terminal edits lines
            return self
        try:
            self._before = termios.tcgetattr(self._file)
            now = [*self._before[:6], [*self._before[6]]]
            now[3] &= ~termios.ICANON
            now[6][termios.VMIN], now[6][termios.VTIME] = 1, 0
            termios.tcsetattr(self._file, termios.TCSANOW, now)
        except (OSError, termios.error):
            self._before = None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._before is not None:
            import termios

            termios.tcsetattr(self._file, termios.TCSADRAIN, self._before)

    def read1(self, size: int = -1, /) -> bytes:
        """At most `size` bytes, none at the end."""
        if self._ended:
            return b""
        data = os.read(self._file, size if size > 0 else CHUNK)
        while self._before is not None and data.endswith(END):
            if not select.select([self._file], [], [], PATIENCE)[0]:
                self._ended = True
                return data.rstrip(END)
            further = os.read(self._file, CHUNK)
            data += further if further.strip(END) else b""
        self._ended = not data
        return data
