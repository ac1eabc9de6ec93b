"""The head of a detached run: a process of its own that left the terminal, holds the run's lock, and may die.

It is started anew rather than forked, so that it has no thread and no connection of the shell's. Secrets come to it
over a pipe; what it says goes to `head.log` in the run's directory.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from dsdoctor.run.directory import RunDirectory
from dsdoctor.run.kept import Secrets
from dsdoctor.yamlfile import FileError

LOG = "head.log"


@dataclass(frozen=True)
class StartedHead:
    """A head that this process has started. `up` can be read once its hosts run, and is at its end when it is gone."""

    process: subprocess.Popen[bytes]
    up: int
    log: Path
    offset: int  # where in the log its words begin


def start_head(
    run: RunDirectory, lock: int, secrets: Secrets, *, chosen: tuple[str, ...] = (), copy: bool = True
) -> StartedHead:
    """Start the head of a run, which goes on with the lock that is held here as `lock`.

    Raises:
        FileError: its log cannot be written.
    """
    log = run.path / LOG
    try:
        output = log.open("ab")
    except OSError as error:
        raise FileError(log, f"cannot be written: {error.strerror}") from None
    readable, writable = os.pipe()
    order = {
        "run": str(run.path.absolute()),
        "lock": lock,
        "up": writable,
        "secrets": secrets,
        "chosen": chosen,
        "copy": copy,
    }
    with output:
        offset = output.tell()
        process = subprocess.Popen(
            [sys.executable, "-m", "dsdoctor.cli._head"],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            pass_fds=(lock, writable),
            start_new_session=True,
        )
    os.close(writable)
    assert process.stdin is not None
    with contextlib.suppress(OSError), process.stdin as pipe:  # one that ends at once says why in its log
        pipe.write(json.dumps(order).encode("ascii"))
    return StartedHead(process, readable, log, offset)
