"""Python exceptions in a log: the final line of each traceback, by rank, and whose code it passed through.

Ranks interleave, so each stream (host and rank) has its own open traceback. What a rule does not know is answered with
these lines, so they must be the exception itself and not the code above it.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from dsdoctor.logs.lines import Line

START = "Traceback (most recent call last)"
# Words of a line that may be an exception although its traceback is not in the log.
WORDS = (
    START,
    *("Error: ", "Exception: ", "Error\n", "Exception\n", "Interrupt\n", "Interrupt: "),
    *("Exception ignored in", "--- Logging error", "another exception occurred", "direct cause of the following"),
    '", line ',
    "╰─",  # the foot of a traceback that rich drew
)

PATIENCE = 400  # lines of a source after which an unfinished traceback is given up
PATIENCE_HEADLESS = 60  # the same of one whose beginning is not in the log: its frames may be something else
MOST = 64  # streams with an open traceback at once

_FRAME = re.compile(
    r'(?:File "(?P<file>[^"]{1,1000})", line \d+|File (?P<bare>[^\s:"]{1,1000}):\d+|(?P<cell>Cell In ?\[\d+\]))'
)
_FRAME_LINE = re.compile(r'File "[^"]{1,1000}", line \d+, in ')
_NAME = r"(?:[A-Za-z_]\w{0,80}\.){0,12}[A-Za-z_]\w{0,80}"
_EXCEPTION = re.compile(rf"(?P<name>{_NAME})(?:: |:$|$)")
_TELLING = re.compile(
    r"(?:Error|Exception|Interrupt|Exit|Failure|Timeout|Disconnected|Refused|Closed|Empty|Full|Abort|Warning)$"
    r"|^(?:socket\.)?gaierror$|\.error$|^Stop(?:Async)?Iteration$"
)
_CAMEL = re.compile(r"(?:^|\.)[A-Z]+[a-z]\w*$|\.")
_BOX = "│╭╰┃❱╷╵"
_LIBRARY = re.compile(
    r"site-packages|dist-packages|[/\\][Ll]ib(?:64)?[/\\]python\d|[/\\]Lib[/\\]|^<|[/\\]bin[/\\]|^/usr/lib"
)
_STANDARD = re.compile(r"[/\\]lib(?:64)?[/\\]python\d(?:\.\d+)?[/\\](?!site-packages|dist-packages)|^<frozen|^<string>")
_LAUNCHER = re.compile(
    r"torch[/\\]distributed[/\\](?:run|launch|launcher|elastic)|deepspeed[/\\]launcher"
    r"|accelerate[/\\]commands|[/\\]bin[/\\](?:torchrun|deepspeed|accelerate)"
)
_OF_LAUNCHER = (
    *("ChildFailedError", "CalledProcessError", "SignalException"),
    *("RayActorError", "ActorDiedError", "WorkerCrashedError"),
)


class Raised(NamedTuple):
    """An exception: its line, and where it was raised. `in_script`: some frame is of the user's own code."""

    line: Line
    name: str
    in_script: bool = False
    in_library: bool = False  # the last frame is of an installed package
    by_launcher: bool = False  # torchrun, deepspeed or accelerate itself
    ignored: bool = False  # "Exception ignored in": printed and survived
    chained: bool = False  # raised while another one was handled, or caused by it


class _Open:
    """A traceback whose end has not been seen."""

    def __init__(self, line: Line, ignored: bool, chained: bool, indent: int | None = None) -> None:
        self.until = line.number + (PATIENCE if indent is None else PATIENCE_HEADLESS)
        self.indent = line.indent if indent is None else indent
        self.ignored = ignored
        self.chained = chained
        self.boxed = any(mark in line.body for mark in _BOX)
        self.files: list[str] = []  # of the frames; the first and the latest few

    def frame(self, file: str) -> None:
        if len(self.files) >= 32:
            del self.files[16]
        self.files.append(file)


class ExceptionTracker:
    """Follows the tracebacks of one source, line by line while one is open."""

    def __init__(self) -> None:
        self._open: dict[tuple[str | None, int | None], _Open] = {}
        self._last: dict[tuple[str | None, int | None], str] = {}  # what the line before a traceback said

    @property
    def open(self) -> bool:
        """Whether the next line must be fed even if no keyword is in it."""
        return bool(self._open)

    def inside(self, line: Line) -> bool:
        """Whether a line that was fed stands between the beginning and the end of a traceback of its stream."""
        return (line.host, line.rank) in self._open and START not in line.body

    def feed(self, line: Line) -> Raised | None:
        """Take the next line; the exception that it ends, if it does."""
        stream = (line.host, line.rank)
        if START in line.body:
            self._begin(stream, line)
            return None
        traceback = self._open.get(stream)
        if traceback is None and line.body.startswith("╰─"):
            traceback = self._headless(stream, line)  # the foot of one that rich drew
        if traceback is None and _FRAME_LINE.match(line.body):
            traceback = self._headless(stream, line)
        if traceback is None:
            self._note(stream, line)
            return self._bare(line)
        if line.number > traceback.until:
            del self._open[stream]
            return None
        return self._inside(stream, traceback, line)

    def _headless(self, stream: tuple[str | None, int | None], line: Line) -> _Open | None:
        """A traceback that begins in the middle, as in the end of a log that somebody pasted."""
        if len(self._open) >= MOST:
            return None
        self._open[stream] = _Open(line, ignored=False, chained=False, indent=max(0, line.indent - 2))
        return self._open[stream]

    def _begin(self, stream: tuple[str | None, int | None], line: Line) -> None:
        before = self._last.pop(stream, "")
        if len(self._open) < MOST or stream in self._open:
            ignored = "Exception ignored in" in before or "--- Logging error" in before
            chained = "another exception occurred" in before or "direct cause of" in before
            self._open[stream] = _Open(line, ignored, chained)

    def _note(self, stream: tuple[str | None, int | None], line: Line) -> None:
        if "xception" in line.body or "--- Logging error" in line.body:
            if len(self._last) > 4 * MOST:
                self._last.clear()
            self._last[stream] = line.body[:200]

    def _inside(self, stream: tuple[str | None, int | None], traceback: _Open, line: Line) -> Raised | None:
        body = line.body
        frame = _FRAME.search(body, 0, 1200)
        if frame:
            traceback.frame(frame["file"] or frame["bare"] or frame["cell"])
            return None
        if not body or body[0] in _BOX:
            traceback.boxed = traceback.boxed or bool(body)
            return None
        found = _EXCEPTION.match(body)
        if not found:
            return None
        telling = _TELLING.search(found["name"])
        placed = line.indent <= traceback.indent and bool(traceback.files) and not traceback.boxed
        # Notes lose indentation, and other ranks print in between: only a name that says what it is ends those.
        if not telling and not (placed and _CAMEL.search(found["name"])):
            return None
        if line.indent > traceback.indent + 1 and traceback.files:
            return None
        del self._open[stream]
        return _raised(line, found["name"], traceback)

    @staticmethod
    def _bare(line: Line) -> Raised | None:
        """An exception's line whose traceback is not in the log."""
        found = _EXCEPTION.match(line.body)
        if not found or not _TELLING.search(found["name"]) or found["name"].endswith("Warning"):
            return None
        # "Error: …" and "Exception: …" alone may be anything; a class of its own name is an exception.
        if found["name"] in ("Error", "Exit", "Timeout", "Warning", "Empty", "Full"):
            return None
        return Raised(line, found["name"], by_launcher=found["name"].endswith(_OF_LAUNCHER))


def _raised(line: Line, name: str, traceback: _Open) -> Raised:
    files = traceback.files
    last = files[-1] if files else ""
    # Of a box whose head was cut off no file is known: most exceptions are the script's.
    in_script = any(not _LIBRARY.search(file) for file in files) or (traceback.boxed and not files)
    return Raised(
        line,
        name,
        in_script=in_script,
        in_library=bool(_LIBRARY.search(last)) and not _STANDARD.search(last),
        by_launcher=name.endswith(_OF_LAUNCHER) or (not in_script and any(_LAUNCHER.search(file) for file in files)),
        ignored=traceback.ignored,
        chained=traceback.chained,
    )
