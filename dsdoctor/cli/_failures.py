"""What an error becomes: a message that helps, and an exit code that a script can trust.

0 well, 1 findings or a failed stage, 2 usage or a file that cannot be read, 3 could not examine, 4 a bug in dsdoctor,
130 interrupted, 141 the reader of the output went away (as for any filter).
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from typing import NoReturn

USAGE = 2
UNEXAMINED = 3
BUG = 4
INTERRUPTED = 130
READER_GONE = 141

ISSUES = "https://github.com/dsdoctor/dsdoctor/issues"


def guarded(command: Callable[[], int], prints_to_pipe: bool = False) -> NoReturn:
    """Run a command and exit with its code; every error that leaves it is told on standard error.

    `prints_to_pipe` is for the process's own entry: the real standard output is made to take any text, and is closed
    without a word when its reader is gone.
    """
    if prints_to_pipe:
        _take_any_text()
    try:
        code = command()
        sys.stdout.flush()
    except BrokenPipeError:
        code = READER_GONE
        if prints_to_pipe:
            _drop_output()
    except KeyboardInterrupt:
        code = INTERRUPTED
        _tell("\ninterrupted")
    except Exception as error:
        code = _explained(error)
    sys.exit(code)


def _explained(error: Exception) -> int:
    """Say what happened; return the exit code."""
    import click

    from dsdoctor.escape import escape
    from dsdoctor.yamlfile import FileError

    if isinstance(error, click.Abort):  # end of input, or "no" to a question
        _tell("interrupted")
        return INTERRUPTED
    if isinstance(error, click.ClickException):
        context = getattr(error, "ctx", None)
        if context is not None:
            _tell(f"{context.get_usage()}\nTry '{context.command_path} --help' for help.\n")
        _tell(f"dsdoctor: {escape(error.format_message())}")
        return USAGE
    code = USAGE if isinstance(error, FileError) else getattr(error, "exit_code", None)
    if isinstance(code, int):  # an error that is foreseen: its class says what it answers to a script
        _tell(f"dsdoctor: {escape(str(error))}")
        return code
    return _bug(error)


def _bug(error: Exception) -> int:
    """Keep the traceback in a file of the user's own and say how to report it."""
    import traceback

    from dsdoctor.escape import escape, escape_block

    trace = "".join(traceback.format_exception(error))
    if os.environ.get("DSDOCTOR_DEBUG"):
        _tell(escape_block(trace))
        return BUG
    last = f"{type(error).__name__}: {error}".split("\n", 1)[0]
    _tell(f"dsdoctor: this is a bug in dsdoctor, not in your set-up: {escape(last)[:300]}")
    try:
        kept = _keep(trace)
    except OSError as problem:
        _tell(f"The traceback could not be saved ({problem}); here it is:\n{escape_block(trace)}")
    else:
        _tell(f"The traceback is in {escape(kept)}; please send it with what you did to\n{ISSUES}")
    _tell("DSDOCTOR_DEBUG=1 shows it on the screen.")
    return BUG


def _keep(trace: str) -> str:
    """Write the traceback where only the user reads it; returns the path. Neither environment nor values go in."""
    import platform
    import time
    from pathlib import Path

    from dsdoctor import __version__

    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    folder = state / "dsdoctor" / "bugs"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt"
    # Options without their values: `--env TOKEN=...` must not end up in a bug report.
    words = [word.split("=", 1)[0] for word in sys.argv[1:] if word.startswith("-") and word != "-"]
    command = next((word for word in sys.argv[1:2] if word.isalpha()), "")
    text = (
        f"dsdoctor {__version__}, Python {platform.python_version()}, {platform.system()} {platform.release()} "
        f"{platform.machine()}\ncommand: {command} {' '.join(words)}\n\n{trace}"
    )
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(text)
    return str(path)


def _tell(text: str) -> None:
    from dsdoctor.terminal import say

    say(text)


def _take_any_text() -> None:
    """In a locale that lacks a letter, write its code rather than stop."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def _drop_output() -> None:
    """Nobody reads any more: what is still buffered goes nowhere, so that the interpreter's own flush is quiet."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
