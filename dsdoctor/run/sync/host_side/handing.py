"""From one host to another: whether this one gets there, and an rsync that copies what it has."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import tempfile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict

    Order = Dict[str, Any]

# The user's own keys and known hosts there, no questions, and no agent that would lend them.
SSH = (
    *("ssh", "-T", "-x", "-o", "BatchMode=yes", "-o", "ConnectTimeout=5", "-o", "ForwardAgent=no"),
    *("-o", "ClearAllForwardings=yes", "-o", "LogLevel=ERROR"),
)


def knows(order: Order) -> Order:
    """Whether this host gets to another by its user's own keys, and finds that host's token there.

    A name may lead elsewhere from here than from the head; the token proves that it is the same folder.
    """
    try:
        argv = [*SSH, *order["ssh"], "--", order["name"], order["test"]]
        null = subprocess.DEVNULL
        code = subprocess.call(argv, stdin=null, stdout=null, stderr=null, timeout=order["limit"])
    except (OSError, subprocess.SubprocessError):
        return {"known": False}
    return {"known": code == 0 and shutil.which("rsync") is not None}


class Handing:
    """An rsync on its way to another host."""

    def __init__(self, order: Order) -> None:
        """Begin. Raises OSError when there is no rsync."""
        shell = " ".join(shlex.quote(word) for word in [*SSH, *order["ssh"]])
        argv = ["rsync", *order["options"], "-e", shell, "--", order["source"], order["target"]]
        self._said = tempfile.TemporaryFile()
        null = subprocess.DEVNULL
        self._process = subprocess.Popen(argv, stdin=null, stdout=null, stderr=self._said, start_new_session=True)

    def state(self) -> Order:
        """The exit code and what it said; `code` is None while it runs."""
        code = self._process.poll()
        if code is None:
            return {"code": None}
        self._said.seek(0)
        return {"code": code, "said": self._said.read(2000).decode("utf-8", "replace")}

    def end(self) -> None:
        """End it, should it still run."""
        if self._process.poll() is None:
            with contextlib.suppress(OSError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
