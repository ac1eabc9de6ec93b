"""The programs of one order: starting them, reading what they print, and how they ended."""

import ctypes
import os
import signal
import stat
import subprocess
import threading
from typing import Any, Callable, Dict, List, Optional

from dsdoctor.run.guardian import cgroup, meeting
from dsdoctor.run.guardian.launched import Failures, RankLog, remove_old
from dsdoctor.run.guardian.process_table import PR_SET_PDEATHSIG, end_descendants
from dsdoctor.run.guardian.reader import Reader

Send = Callable[[Dict[str, Any]], None]


class NoFolderError(ValueError):
    """A folder that the job needs cannot be made; the message says which, and why."""


class Programs:
    """What an order starts: its command, or the command once for each of its `ranks`.

    Its frames go to `send`; ended children are told to it, since a subreaper collects all. With `rank_logs` the
    command is DeepSpeed's launcher, whose ranks write into files. The exit code is that of whoever failed first.
    """

    def __init__(self, order: Dict[str, Any], send: Send) -> None:
        self.order = order
        self.send = send
        self.group: Optional[str] = None  # the control group that they are started in
        self.code: Optional[int] = None  # once all have ended, or one has failed
        self._children: Dict[int, "subprocess.Popen[bytes]"] = {}
        self._ranks: Dict[int, int] = {}  # of a child that is one rank: process id -> rank
        self._readers: List[threading.Thread] = []
        logs = order.get("rank_logs") or {}
        self._failures = Failures(logs["ranks"]) if logs else None
        self._not_up = len(logs.get("ranks", ()))
        self._logs = [RankLog(logs["folder"], rank, self._rank_is_up) for rank in logs.get("ranks", ())]

    def start(self) -> None:
        """Start them, each in its own session; they are told to end should the guardian be killed outright.

        Must be called before any thread runs: what runs between fork and exec must find no lock held.
        Raises OSError, ValueError or subprocess.SubprocessError.
        """
        for folder in self.order.get("make", []):
            try:
                os.makedirs(folder, exist_ok=True)
            except OSError as error:
                raise NoFolderError("the folder %s cannot be made: %s" % (folder, error.strerror or error)) from None
        for log in self._logs:
            remove_old(log.folder, [log.rank])
        unset = [name.encode("ascii") for name in self.order.get("unset", ())]
        environment = {name: value for name, value in os.environb.items() if name not in unset}
        environment.update(in_bytes(self.order["env"]))
        ranks = self.order.get("ranks") or []
        try:
            for part in ranks:
                pid = self._start(self.order["argv"], {**environment, **in_bytes(part["env"])})
                self._ranks[pid] = part["rank"]
        except (OSError, subprocess.SubprocessError):
            end_descendants(0)
            raise
        if ranks:
            self.send({"e": "ranks_up"})
        else:
            self._start(self.order["argv"], environment)

    def _start(self, argv: List[str], environment: Dict[bytes, bytes]) -> int:
        libc, guardian = ctypes.CDLL(None, use_errno=True), os.getpid()

        def tie_to_guardian() -> None:
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
            if self.group is not None:
                cgroup.join(self.group)
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
        return child.pid

    def follow(self) -> None:
        """Begin to read what they print, and to see whether their host reaches the others."""
        first = self.order.get("first_rank", 0)
        for pid, child in self._children.items():
            for stream, name in ((child.stdout, "o"), (child.stderr, "e")):
                if stream is not None:
                    self._readers.append(begun(Reader(stream, name, first, self._sent, self._ranks.get(pid)).run))
        for log in self._logs:
            self._readers.append(begun(Reader(log, "o", first, self.send, log.rank).run))
        if self.order.get("meet"):
            begun(lambda: meeting.watch(self.order["meet"], self.send))

    def note_ended(self, codes: Dict[int, int], ending: bool = False) -> None:
        """Take the exit codes of processes that were collected; those that are not ours are passed over.

        With `ending` they were told to end: what they end with is no failure of theirs.
        """
        if self._failures is not None and not ending and self.code is None:
            self._failures.look()
            self._tell_failed(self._failures.failed)
        failed = {}
        for pid, code in codes.items():
            child = self._children.get(pid)
            if child is not None and child.returncode is None:
                child.returncode = code
                failed.update({self._ranks.get(pid, -1): code} if code else {})
        if self.code is not None:
            return
        ended = [child.returncode for child in self._children.values()]
        if failed and self._ranks and not ending:
            self._tell_failed({rank: failed[rank] for rank in sorted(failed)})
        elif failed or None not in ended:
            self.code = next(iter(failed.values()), 0)

    def drain(self, seconds: float) -> None:
        """Wait until all that was printed has been read; nobody is left who could print more."""
        for log in self._logs:
            log.end()
        for reader in self._readers:
            reader.join(timeout=seconds)

    def _sent(self, frame: Dict[str, Any]) -> None:
        self.send(frame)
        if self._failures is not None:
            self._failures.hear(frame)

    def _tell_failed(self, failed: Dict[int, int]) -> None:
        """Report ranks that ended with an error; the first one's code is the host's."""
        for rank, code in failed.items():
            self.send({"e": "rank", "r": rank, "code": code})
        if failed:
            self.code = next(iter(failed.values()))

    def _rank_is_up(self) -> None:
        self._not_up -= 1
        if self._not_up == 0:
            self.send({"e": "ranks_up"})


def begun(work: Callable[[], None]) -> threading.Thread:
    """A thread that does a work and keeps nobody from ending."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def remove_pipes(order: Dict[str, Any]) -> None:
    """Take the pipes away that torch made for the flight recorder of each rank and leaves behind."""
    for path in order.get("pipes") or ():
        try:
            if stat.S_ISFIFO(os.lstat(path).st_mode):
                os.unlink(path)
        except OSError:
            continue


def in_bytes(variables: Dict[str, str]) -> Dict[bytes, bytes]:
    """Variables as the ranks are to find them, in UTF-8 whatever the session's locale has letters for."""
    return {name.encode("ascii"): value.encode("utf-8", "surrogateescape") for name, value in variables.items()}


def describe(error: Exception, order: Dict[str, Any]) -> str:
    """Say what could not be started, and where."""
    if isinstance(error, NoFolderError):
        return str(error)
    if isinstance(error, FileNotFoundError) and not os.path.isdir(order["cwd"]):
        return "the folder %s is not there" % order["cwd"]
    return "%s could not be started in %s: %s" % (
        order["argv"][0],
        order["cwd"],
        getattr(error, "strerror", None) or error,
    )
