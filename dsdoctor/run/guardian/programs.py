"""The programs of one order: starting them, reading what they print, and how they ended."""

import ctypes
import os
import signal
import subprocess
import threading
from typing import Any, Callable, Dict, List, Optional

from dsdoctor.run.guardian.process_table import PR_SET_PDEATHSIG
from dsdoctor.run.guardian.reader import Reader

Send = Callable[[Dict[str, Any]], None]


class Programs:
    """What an order starts. Its frames go to `send`; ended children are told to it, since a subreaper collects all."""

    def __init__(self, order: Dict[str, Any], send: Send) -> None:
        self.order = order
        self.send = send
        self.code: Optional[int] = None  # of the command, once it has ended
        self._children: Dict[int, "subprocess.Popen[bytes]"] = {}
        self._readers: List[threading.Thread] = []

    def start(self) -> None:
        """Start the command in its own session; it is told to end should the guardian be killed outright.

        Must be called before any thread runs: what runs between fork and exec must find no lock held.
        Raises OSError, ValueError or subprocess.SubprocessError.
        """
        for folder in self.order.get("make", []):
            os.makedirs(folder, exist_ok=True)
        environment = {name: value for name, value in os.environ.items() if name not in self.order.get("unset", ())}
        environment.update(self.order["env"])
        self._start(self.order["argv"], environment)

    def _start(self, argv: List[str], environment: Dict[str, str]) -> None:
        libc, guardian = ctypes.CDLL(None, use_errno=True), os.getpid()

        def tie_to_guardian() -> None:
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
            if os.getppid() != guardian:  # it was killed before this could be asked for
                os._exit(143)

        child = subprocess.Popen(
            argv,
            cwd=self.order["cwd"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=tie_to_guardian,  # noqa: PLW1509 - no thread runs yet
        )
        self._children[child.pid] = child
        self.send({"e": "started", "pid": child.pid})

    def follow(self) -> None:
        """Begin to read what they print."""
        for child in self._children.values():
            for stream, name in ((child.stdout, "o"), (child.stderr, "e")):
                if stream is not None:
                    read = Reader(stream, name, self.order.get("first_rank", 0), self.send).run
                    reader = threading.Thread(target=read, daemon=True)
                    reader.start()
                    self._readers.append(reader)

    def note_ended(self, codes: Dict[int, int]) -> None:
        """Take the exit codes of processes that were collected; those that are not ours are passed over."""
        for pid, code in codes.items():
            child = self._children.get(pid)
            if child is not None:
                self.code = child.returncode = code

    def drain(self, seconds: float) -> None:
        """Wait until all that was printed has been read."""
        for reader in self._readers:
            reader.join(timeout=seconds)


def describe(error: Exception, order: Dict[str, Any]) -> str:
    """Say what could not be started, and where."""
    if isinstance(error, FileNotFoundError) and not os.path.isdir(order["cwd"]):
        return "the folder %s is not there" % order["cwd"]
    return "%s could not be started in %s: %s" % (
        order["argv"][0],
        order["cwd"],
        getattr(error, "strerror", None) or error,
    )
