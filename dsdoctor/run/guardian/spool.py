"""The spool: what a guardian has to say, kept on the host, so that a head that was away can go on where it was.

A folder for each guardian: `frames` (one JSON object a line; `at` is where the line begins, counted from the first line
ever written), `frames.old` (those before them, once there are many: older ones are dropped), `identity` (who the
guardian is), `followed` (touched as long as a head follows), `stall` (that its ranks stand still, found while no head
did), `end` (how it ended; its room is taken beforehand, so that a full disk cannot hide the exit code), and `stop` (put
there by whoever wants it to stop: no socket, no port, works on network file systems). A detached guardian is heard
through its spool alone: it takes `room` beforehand, and gives it up when the disk is full, so that what its ranks say
of that is still heard.
"""

import json
import os
import time
from typing import IO, Any, Dict, List, Optional, Tuple

FILES = (
    *("frames", "frames.old", "identity", "identity.new", "end", "stop", "stop.new", "room"),
    *("followed", "stall", "stall.new"),
)
ROOM = 256 * 1024  # bytes for what is said once the disk is full
RESERVED = 4096  # bytes of the `end` file
CHUNK = 1 << 18  # bytes that are read at once
SAID_AGAIN = ("started", "ranks_up", "meet")
RETRY_SECONDS = 1.0  # how often a spool that cannot be written is tried again


class Spool:
    """A guardian's own spool, to write. A disk that is full or read-only costs frames, never the job.

    It holds at most `limit` bytes of lines, and at least the last half of that; 0: whatever comes.
    """

    def __init__(self, folder: str, limit: int = 0) -> None:
        self.folder, self.limit = folder, limit
        self._base = 0  # where `frames` begins
        self._again: List[Dict[str, Any]] = []  # what a head must hear though the lines before it are dropped
        self.problem: Optional[str] = None  # why the last frame could not be written
        self.missing = 0
        self.size = 0
        self._file: Optional[int] = None
        self._tried = 0.0
        try:
            self._open()
        except OSError as error:
            self._give_up(error)

    def _open(self) -> None:
        os.makedirs(self.folder, exist_ok=True)
        self._reserve()
        self._file = os.open(os.path.join(self.folder, "frames"), os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        self._base = segments(self.folder)[-1][0]
        size = os.fstat(self._file).st_size
        if size:  # the guardian before us may have been killed in the middle of a line
            tail = os.pread(self._file, 1 << 20, max(0, size - (1 << 20)))
            size -= len(tail) - (tail.rfind(b"\n") + 1)
            os.ftruncate(self._file, size)
        self.size = self._base + size

    def _reserve(self) -> None:
        for name, content in (("end", b" " * RESERVED), ("followed", b"")):
            path = os.path.join(self.folder, name)
            if not os.path.exists(path):
                with open(path, "wb") as file:
                    file.write(content)

    def write(self, frame: Dict[str, Any]) -> bytes:
        """Add a frame and return its line; it has `at` when it is on the disk."""
        now = time.monotonic()
        if self.problem is not None and now - self._tried < RETRY_SECONDS:
            self.missing += 1
            return encoded(frame)
        try:
            if self._file is None:
                self._open()
            if self.missing:
                words = "%d lines are missing here, which could not be written: %s" % (self.missing, self.problem)
                self._append({"e": "note", "text": words})
                self.missing = 0
            line = self._append(frame)
        except OSError as error:
            self._give_up(error)
            if self._gave_room():
                return self.write(frame)
            self.missing += 1
            return encoded(frame)
        self.problem = None
        return line

    def _gave_room(self) -> bool:
        """Give up the room that was taken beforehand, once; whether there was any."""
        try:
            os.unlink(os.path.join(self.folder, "room"))
        except OSError:
            return False
        self.problem = None  # not waited for: it is tried at once
        return True

    def _append(self, frame: Dict[str, Any]) -> bytes:
        if self.limit and self.size - self._base >= self.limit // 2:
            self._turn_over()
        if frame["e"] in SAID_AGAIN:
            self._again.append(frame)
        return self._add(frame)

    def _add(self, frame: Dict[str, Any]) -> bytes:
        assert self._file is not None
        line = encoded(dict(frame, at=self.size))
        if os.write(self._file, line) != len(line):
            raise OSError(28, os.strerror(28))  # the rest found no room
        self.size += len(line)
        return line

    def _turn_over(self) -> None:
        """Begin with an empty `frames`; what was in it is the old, and the old before that is dropped."""
        path = os.path.join(self.folder, "frames")
        os.replace(path, path + ".old")
        if self._file is not None:
            os.close(self._file)
            self._file = None
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        self._base = self.size
        for frame in self._again:
            self._add(frame)

    def _give_up(self, error: OSError) -> None:
        """Take half a line back; it is tried again later."""
        self.problem, self._tried = error.strerror or str(error), time.monotonic()
        if self._file is not None:
            try:
                os.ftruncate(self._file, self.size - self._base)
            except OSError:
                os.close(self._file)
                self._file = None

    def write_identity(self, proofs: Dict[str, Any]) -> None:
        """Say who guards, whole or not at all. Raises OSError."""
        path = os.path.join(self.folder, "identity")
        with open(path + ".new", "w") as file:
            json.dump(proofs, file)
        os.replace(path + ".new", path)

    def write_stall(self, stall: Optional[Dict[str, Any]]) -> None:
        """Say that its ranks stand still, or that they do not any more. Raises OSError."""
        path = os.path.join(self.folder, "stall")
        if stall is None:
            os.unlink(path)
            return
        with open(path + ".new", "w") as file:
            json.dump(stall, file)
        os.replace(path + ".new", path)

    def followed_at(self) -> int:
        """When a head last said that it follows, by the disk's clock; 0 where that cannot be seen."""
        try:
            return os.stat(os.path.join(self.folder, "followed")).st_mtime_ns
        except OSError:
            return 0

    def write_end(self, frame: Dict[str, Any]) -> None:
        """Say how it ended, in the room that was kept for it."""
        self._gave_room()
        try:
            with open(os.path.join(self.folder, "end"), "r+b") as file:
                file.write(encoded(frame)[: RESERVED - 1])
        except OSError:
            pass


def take_room(folder: str) -> None:
    """Make a spool's folder, and take the room there that its guardian may need one day. Raises OSError."""
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, "room")
    try:
        with open(path, "wb") as file:
            file.write(os.urandom(ROOM))  # not zeros, which some file systems keep without room
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        if os.path.exists(path):
            os.unlink(path)
        raise


def segments(folder: str) -> List[Tuple[int, str]]:
    """Where each of a spool's files of frames begins, in the order of their lines; `frames` is always the last."""
    found: List[Tuple[int, str]] = []
    after = 0
    for name in ("frames.old", "frames"):
        path = os.path.join(folder, name)
        try:
            with open(path, "rb") as file:
                first = file.readline()
                size = os.fstat(file.fileno()).st_size
        except OSError:
            first, size = b"", -1
        try:
            base = int(json.loads(first.decode("ascii"))["at"]) if first.endswith(b"\n") else after
        except (ValueError, KeyError, TypeError):
            base = after
        if size >= 0 or name == "frames":
            found.append((base, path))
            after = base + max(0, size)
    return found


class Frames:
    """Reads a spool's lines from an offset on, while they are written.

    `gone` counts bytes that were dropped before they could be read.
    """

    def __init__(self, folder: str, offset: int) -> None:
        self.folder, self.at, self.gone = folder, offset, 0
        self._file: Optional[IO[bytes]] = None
        self._rest = b""

    def read(self) -> bytes:
        """The next whole lines; empty at the present end. Raises OSError."""
        chunk = (self._file or self._open()).read(CHUNK)
        if not chunk and self._turned_over():
            chunk = self._open().read(CHUNK)
        lines, newline, self._rest = (self._rest + chunk).rpartition(b"\n")
        self.at += len(lines + newline)
        return lines + newline

    def _turned_over(self) -> bool:
        """Whether another file has taken the place of the one that was read to its end."""
        assert self._file is not None
        try:
            return os.stat(os.path.join(self.folder, "frames")).st_ino != os.fstat(self._file.fileno()).st_ino
        except OSError:
            return False  # this very moment

    def _open(self) -> IO[bytes]:
        if self._file is not None:
            self._file.close()
            self._file = None
        self._rest = b""
        parts = segments(self.folder)
        base, path = next((part for part in reversed(parts) if part[0] <= self.at), parts[0])
        self.gone += max(0, base - self.at)
        self.at = max(self.at, base)
        self._file = open(path, "rb")
        self._file.seek(self.at - base)
        return self._file


def encoded(frame: Dict[str, Any]) -> bytes:
    """A frame as a line."""
    return (json.dumps(frame) + "\n").encode("ascii")


def read_json(folder: str, name: str) -> Optional[Dict[str, Any]]:
    """A small file of a spool; None when it is not there, empty, or not whole."""
    try:
        with open(os.path.join(folder, name), "rb") as file:
            value = json.loads(file.read().decode("utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def ask_to_stop(folder: str, why: str) -> None:
    """Put the stop file there. Raises OSError."""
    path = os.path.join(folder, "stop")
    with open(path + ".new", "w") as file:
        json.dump({"why": why}, file)
    os.replace(path + ".new", path)


def stop_asked(folder: str) -> Optional[str]:
    """Why the guardian is to stop, when somebody asked for it."""
    path = os.path.join(folder, "stop")
    if not os.path.exists(path):
        return None
    return str((read_json(folder, "stop") or {}).get("why") or "told to")


def remove(folder: str) -> None:
    """Take a spool away, and folders above it that are empty then; a file that is not ours stays. Raises OSError."""
    for name in FILES:
        try:
            os.unlink(os.path.join(folder, name))
        except FileNotFoundError:
            pass
    os.rmdir(folder)
    for above in (os.path.dirname(folder), os.path.dirname(os.path.dirname(folder))):
        try:
            os.rmdir(above)  # the attempt's, of which other hosts may have theirs on a shared disk; then `guard`
        except OSError:
            return
