"""Ranks that DeepSpeed's launcher starts: their lines from the files it writes, and which of them failed.

`deepspeed.launcher.launch` (0.19.8) writes `TIME_rankN.log` into the folder of `--enable_each_rank_log`, prints the
process id of each rank that it starts, in the order of the ranks, and of a failure only the exit code: not whose.
"""

import os
import re
import threading
import time
from typing import IO, Any, Callable, Dict, List, Optional

from dsdoctor.run.guardian.process_table import exit_code, stat_of

SPAWNED = re.compile(r"process (\d{1,9}) spawned with command")
SUCCEEDED = re.compile(r"Process (\d{1,9}) exits successfully")
ENDS_WITH = re.compile(r"exits with return code = (-?\d{1,9})")
LOG = re.compile(r"\d+_rank(\d{1,9})\.log")
LOOK_SECONDS = 0.1


class RankLog:
    """The file of one rank as a stream that ends when it is told that nothing more will be written."""

    def __init__(self, folder: str, rank: int, opened: Callable[[], None]) -> None:
        self.folder = folder
        self.rank = rank
        self._opened = opened
        self._over = threading.Event()
        self._file: Optional[IO[bytes]] = None

    def read1(self, size: int) -> bytes:
        """What was added to the file, waiting for more at its end; empty when it is over."""
        while True:
            over = self._over.is_set()  # before the look: what was written until then is still read
            if self._file is None:
                self._open()
            data = self._file.read(size) if self._file is not None else b""
            if data or over:
                return data
            time.sleep(LOOK_SECONDS)

    def end(self) -> None:
        """Nothing more will be written: every writer has ended."""
        self._over.set()

    def _open(self) -> None:
        found = sorted(name for name, rank in logs_in(self.folder) if rank == self.rank)
        if found:
            self._file = open(os.path.join(self.folder, found[-1]), "rb", buffering=0)
            self._opened()


def logs_in(folder: str) -> "List[tuple[str, int]]":
    """The logs of ranks in a folder: (file name, rank)."""
    try:
        matches = [LOG.fullmatch(name) for name in os.listdir(folder)]
    except OSError:
        return []
    return [(match.group(0), int(match.group(1))) for match in matches if match]


def remove_old(folder: str, ranks: List[int]) -> None:
    """Take away what an earlier attempt of these ranks has left in the folder. Raises OSError."""
    for name, rank in logs_in(folder):
        if rank in ranks:  # hosts may share the folder
            os.unlink(os.path.join(folder, name))


class Failures:
    """Which ranks of DeepSpeed's launcher failed first.

    A rank that has ended is a zombie until the launcher looks, once a second: its exit code is in /proc until then.
    Where it looked sooner, it is the first rank that vanished without being told to have succeeded, and the code is
    what the launcher says at its own end.
    """

    def __init__(self, ranks: List[int]) -> None:
        self.failed: Dict[int, int] = {}
        self._ranks = list(ranks)
        self._alive: Dict[int, int] = {}  # process id -> rank
        self._vanished: List[int] = []  # process ids, in the order in which they were seen to be gone
        self._rank_of: Dict[int, int] = {}
        self._succeeded: "set[int]" = set()

    def hear(self, frame: Dict[str, Any]) -> None:
        """Take a line of the launcher's."""
        text = str(frame.get("x", ""))
        spawned, succeeded, ends = SPAWNED.search(text), SUCCEEDED.search(text), ENDS_WITH.search(text)
        if spawned and len(self._rank_of) < len(self._ranks):
            pid = int(spawned.group(1))
            self._rank_of[pid] = self._alive[pid] = self._ranks[len(self._rank_of)]
        elif succeeded:
            self._succeeded.add(int(succeeded.group(1)))
        elif ends and not self.failed:
            self.look()
            gone = [pid for pid in self._vanished if pid not in self._succeeded]
            if gone and not self.failed:
                self.failed = {self._rank_of[gone[0]]: int(ends.group(1))}

    def look(self) -> None:
        """See which ranks have ended; only those of the first look that finds a failure have failed by themselves."""
        found = {}
        for pid, rank in list(self._alive.items()):
            fields = stat_of(pid)
            if fields and fields[0] != b"Z":
                continue
            self._alive.pop(pid, None)
            if not fields:
                self._vanished.append(pid)
            elif exit_code(fields):
                found[rank] = exit_code(fields)
        if found and not self.failed:
            self.failed = found
