"""The one place that prints: standard output for results, standard error for everything said on the way.

What is printed must have gone through :mod:`dsdoctor.escape`; colour and width come from :func:`look_of`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from dsdoctor.report.layout import Look

_CLEAR = "\r\x1b[2K"
_LOCK = threading.Lock()  # remarks and the status line come from several threads
_UNICODE_SAMPLE = "✓✗–·│…"


def look_of(stream: IO[str]) -> Look:
    """How to draw on a stream: colour and width for a terminal, plain and unwrapped for a pipe or a file.

    `NO_COLOR` turns colour off, `FORCE_COLOR` on (both when not empty; https://no-color.org, https://force-color.org).
    """
    from dsdoctor.report.layout import Look

    tty = is_terminal(stream)
    wanted = tty and os.environ.get("TERM", "") != "dumb"
    if os.environ.get("FORCE_COLOR"):
        wanted = True
    if os.environ.get("NO_COLOR"):
        wanted = False
    width = max(40, shutil.get_terminal_size().columns) if tty else None
    return Look(width=width, color=wanted, unicode=_can_write(stream, _UNICODE_SAMPLE))


def is_terminal(stream: IO[str]) -> bool:
    """Whether a person sees the stream."""
    try:
        return stream.isatty()
    except ValueError:  # closed
        return False


def write(text: str) -> None:
    """Print a result on standard output, ending with a line break."""
    sys.stdout.write(text if text.endswith("\n") else text + "\n")
    sys.stdout.flush()


def say(text: str) -> None:
    """Print a remark on standard error; a standard error that is gone is no reason to stop."""
    gone = _gone(StatusLine.drawn)
    StatusLine.drawn = 0
    _to_stderr(gone + (text if text.endswith("\n") else text + "\n"))


def deliver(text: str, output: str | None) -> None:
    """Print a result, or put it into a file, whole or not at all.

    An existing file keeps its permissions, a link is followed, and what is not a plain file (a pipe, `/dev/stdout`)
    is written to directly.

    Raises:
        FileError: the path is a folder, its folder is missing, or it cannot be written.
    """
    if output is None or output == "-":
        write(text)
        return
    from dsdoctor.yamlfile import FileError

    path = Path(os.path.realpath(output))
    if path.is_dir():
        raise FileError(output, "is a folder; wanted the name of a file")
    if not path.parent.is_dir():
        raise FileError(output, f"the folder {path.parent} does not exist; make it first: mkdir -p {path.parent}")
    data = (text if text.endswith("\n") else text + "\n").encode("utf-8", "backslashreplace")
    try:
        if path.exists() and not path.is_file():
            path.write_bytes(data)
        else:
            _replace(path, data)
    except OSError as error:
        raise FileError(output, f"cannot be written: {error.strerror or error}") from None


def _replace(path: Path, data: bytes) -> None:
    """Write beside the file under a name of its own, then rename, so that a reader sees the old text or the new."""
    import secrets  # brings OpenSSL's library in, which most commands do not need

    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        with os.fdopen(descriptor, "wb") as file:
            if path.exists():
                os.fchmod(descriptor, path.stat().st_mode & 0o7777)
            file.write(data)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


class StatusLine:
    """A line, or several, on standard error drawn over themselves; silent where nobody sees it. Safe in threads."""

    drawn = 0  # how many lines stand on the screen now; a remark takes them away first

    def __init__(self) -> None:
        self.shown = is_terminal(sys.stderr) and os.environ.get("TERM", "") != "dumb"

    def show(self, text: str) -> None:
        """Replace what stands there by a line."""
        self.show_lines([text])

    def show_lines(self, lines: Sequence[str]) -> None:
        """Replace what stands there by these lines, at least one."""
        if self.shown:
            gone = _gone(StatusLine.drawn) or _CLEAR
            StatusLine.drawn = len(lines)
            width = shutil.get_terminal_size().columns - 1
            _to_stderr(gone + "\n".join(line[:width] for line in lines))

    def clear(self) -> None:
        """Take it away."""
        if self.shown and StatusLine.drawn:
            gone = _gone(StatusLine.drawn)
            StatusLine.drawn = 0
            _to_stderr(gone)


def _gone(lines: int) -> str:
    """What takes so many lines away, with the cursor in the last of them."""
    return _CLEAR + "\x1b[1A\x1b[2K" * (lines - 1) if lines else ""


@contextlib.contextmanager
def status_line() -> Iterator[StatusLine]:
    """A status line that is gone afterwards, whatever happens."""
    line = StatusLine()
    try:
        yield line
    finally:
        line.clear()


def _to_stderr(text: str) -> None:
    with _LOCK, contextlib.suppress(OSError, ValueError):
        sys.stderr.write(text)
        sys.stderr.flush()


def _can_write(stream: IO[str], sample: str) -> bool:
    try:
        sample.encode(getattr(stream, "encoding", None) or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
