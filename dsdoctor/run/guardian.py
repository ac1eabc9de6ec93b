"""The guardian: owns the processes of one run on one host, and ends all of them when it is told or loses its head.

Sent over the transport's standard input and run by the job's own Python (3.8 or newer, standard library only); nothing
is installed. The first line it reads after its source is the order (JSON); further lines are commands. What it writes
is one JSON object a line after a marker line, so that a login shell's banner cannot be mistaken for an answer.

It is the subreaper of everything it starts: a rank that forks a child and dies leaves that child with the guardian,
not with init. Stopping therefore means "every descendant of mine", found in /proc, and never a name or a pattern.
"""

import contextlib
import ctypes
import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from typing import IO, Any, Dict, List, Optional

MARKER = "<<<dsdoctor-guardian"
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h
LINE_LIMIT = 64 * 1024  # a longer line is cut into pieces: constant memory on both ends
# Our template; without it torchrun names the local rank.
RANK = re.compile(r"^@rank(\d{1,9})@ ?|^\[default(\d{1,9})\]:")


class Guardian:
    """One order carried out: start, forward lines, beat, watch the lifeline, stop, report the exit."""

    def __init__(self, order: Dict[str, Any], control: IO[bytes], output: IO[bytes]) -> None:
        self.order = order
        self.control = control
        self.output = output
        self.frames: "queue.Queue[Optional[Dict[str, Any]]]" = queue.Queue(maxsize=2000)
        self.last_word = time.monotonic()
        self.stop_reason: Optional[str] = None
        self.oom_kills = oom_kills()
        self.child_status: Optional[int] = None
        self.child: "subprocess.Popen[bytes]"

    def run(self) -> int:
        """Carry the order out and return the exit code to end with."""
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda seen, _: self.ask_to_stop("signal %d" % seen))
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        writer = threading.Thread(target=self.write_frames, daemon=True)
        try:
            self.start(libc)  # before any thread: what runs between fork and exec must find no lock held
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            writer.start()
            self.send({"e": "error", "text": describe(error, self.order)})
            self.finish(writer)
            return 127
        writer.start()
        threading.Thread(target=self.read_control, daemon=True).start()
        readers = [
            threading.Thread(target=self.read_output, args=(stream, name), daemon=True)
            for stream, name in ((self.child.stdout, "o"), (self.child.stderr, "e"))
            if stream is not None
        ]
        for reader in readers:
            reader.start()
        code = self.watch()
        for reader in readers:
            reader.join(timeout=2)
        self.send_last(
            {
                "e": "exit",
                "code": code,
                "stopped": self.stop_reason,
                "left": len(descendants()),
                "oom_kills": None if self.oom_kills is None else (oom_kills() or 0) - self.oom_kills,
            }
        )
        self.finish(writer)
        return 0

    def start(self, libc: ctypes.CDLL) -> None:
        """Start the command in its own session; it is told to end should the guardian be killed outright."""
        environment = dict(os.environ)
        environment.update(self.order["env"])
        for folder in self.order.get("make", []):
            os.makedirs(folder, exist_ok=True)

        def tie_to_guardian() -> None:
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)

        self.child = subprocess.Popen(
            self.order["argv"],
            cwd=self.order["cwd"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=tie_to_guardian,  # noqa: PLW1509 - no thread runs yet
        )
        self.send({"e": "started", "pid": self.child.pid})

    def watch(self) -> int:
        """Wait for the end of the command, beating and watching the lifeline; returns its exit code."""
        beat_at, limit = 0.0, self.order["lifeline_seconds"]
        while self.child_status is None and self.stop_reason is None:
            self.reap()
            now = time.monotonic()
            if now - self.last_word > limit:
                self.ask_to_stop("no word from the head for %.0f s" % limit)
            if now - beat_at >= 1:
                beat_at = now
                self.send({"e": "beat"}, wait=False)
            time.sleep(0.05)
        if self.stop_reason is not None:
            self.send({"e": "stopping", "why": self.stop_reason}, wait=False)
        self.stop_descendants()
        self.reap()
        if self.child_status is None:
            return -signal.SIGKILL
        return self.child_status

    def stop_descendants(self) -> None:
        """TERM to every descendant, and KILL to those that are left after the grace."""
        deadline = time.monotonic() + (self.order["grace_seconds"] if self.stop_reason else 1.0)
        send_signal(descendants(), signal.SIGTERM)
        while descendants() and time.monotonic() < deadline:
            self.reap()
            time.sleep(0.05)
        for _ in range(100):
            left = descendants()
            if not left:
                return
            send_signal(left, signal.SIGKILL)
            self.reap()
            time.sleep(0.05)

    def reap(self) -> None:
        """Collect ended children, our own and those inherited as subreaper."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self.child.pid:
                code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status)
                self.child_status = self.child.returncode = code

    def read_control(self) -> None:
        """Take commands until the head closes the line or goes silent."""
        for line in self.control:
            self.last_word = time.monotonic()
            try:
                command = json.loads(line.decode("utf-8")).get("c")
            except (ValueError, AttributeError):
                continue
            if command == "stop":
                self.ask_to_stop("told to")
        self.ask_to_stop("the line to the head closed")

    def ask_to_stop(self, reason: str) -> None:
        """Remember the first reason to stop; the watching loop acts on it."""
        if self.stop_reason is None:
            self.stop_reason = reason

    def read_output(self, stream: IO[bytes], name: str) -> None:
        """Forward the command's lines, the rank taken off the front."""
        first = self.order.get("first_rank", 0)
        rank, whole = None, True
        for piece in iter(lambda: stream.readline(LINE_LIMIT), b""):
            text = piece.decode("utf-8", "replace")
            match = RANK.match(text)
            if match:
                rank = int(match.group(1)) if match.group(1) is not None else first + int(match.group(2))
                # torchrun puts the prefix before every fragment that it happens to read of a line, too.
                text = text[match.end() :].replace("@rank%d@ " % rank, "")
            elif whole:
                rank = None  # otherwise the piece goes on with a line that was too long
            whole = text.endswith("\n")
            self.send({"e": "line", "r": rank, "s": name, "x": text.rstrip("\n")})

    def send(self, frame: Dict[str, Any], wait: bool = True) -> None:
        """Queue a frame. With `wait` a full queue holds the caller back: the head reads too slowly."""
        try:
            self.frames.put(frame, block=wait)
        except queue.Full:
            pass

    def send_last(self, frame: Dict[str, Any]) -> None:
        """Queue the last frame; lines that nobody takes any more make room for it."""
        try:
            self.frames.put(frame, timeout=5)
            return
        except queue.Full:
            pass
        with contextlib.suppress(queue.Empty):
            while True:
                self.frames.get_nowait()
        self.send(frame, wait=False)

    def write_frames(self) -> None:
        """Write queued frames; a broken line means that the head is gone."""
        while True:
            frame = self.frames.get()
            if frame is None:
                return
            try:
                self.output.write((json.dumps(frame) + "\n").encode("ascii"))
                self.output.flush()
            except (OSError, ValueError):
                self.ask_to_stop("the line to the head broke")
                while self.frames.get() is not None:  # keep the readers going, so that nobody blocks on a full pipe
                    pass
                return

    def finish(self, writer: threading.Thread) -> None:
        """Let the last frames out, for as long as a living head needs to take them."""
        try:
            self.frames.put(None, timeout=5)
        except queue.Full:
            return
        writer.join(timeout=5)


def parents() -> Dict[int, int]:
    """Map every live process to its parent, from /proc; zombies are left out."""
    found = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open("/proc/%s/stat" % name, "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            continue
        if fields[0] not in (b"Z", b"X"):
            found[int(name)] = int(fields[1])
    return found


def descendants() -> List[int]:
    """All live processes below this one."""
    children: Dict[int, List[int]] = {}
    for pid, parent in parents().items():
        children.setdefault(parent, []).append(pid)
    found: List[int] = []
    todo = [os.getpid()]
    while todo:
        below = children.get(todo.pop(), [])
        found += below
        todo += below
    return found


def oom_kills() -> Optional[int]:
    """How many processes this host's kernel has killed for want of memory since it booted (Linux 4.13 and newer)."""
    try:
        with open("/proc/vmstat", "rb") as file:
            found = re.search(rb"^oom_kill (\d+)$", file.read(), re.MULTILINE)
    except OSError:
        return None
    return int(found.group(1)) if found else None


def send_signal(pids: List[int], number: int) -> None:
    """Signal processes; one that is gone meanwhile is no error. CONT wakes stopped ones, which TERM would not reach."""
    for pid in pids:
        try:
            os.kill(pid, number)
            os.kill(pid, signal.SIGCONT)
        except OSError:
            continue


def describe(error: Exception, order: Dict[str, Any]) -> str:
    """Say what could not be started, and where."""
    if isinstance(error, FileNotFoundError) and not os.path.isdir(order["cwd"]):
        return "the folder %s is not there" % order["cwd"]
    return "%s could not be started in %s: %s" % (
        order["argv"][0],
        order["cwd"],
        getattr(error, "strerror", None) or error,
    )


def main() -> None:
    """Read the order, announce, carry it out."""
    control, output = sys.stdin.buffer, sys.stdout.buffer
    order = json.loads(control.readline().decode("utf-8"))
    output.write(("\n" + MARKER + "\n").encode("ascii"))  # a login shell may have left a line unfinished
    output.flush()
    code = Guardian(order, control, output).run()
    sys.stdout.flush()
    os._exit(code)  # daemon threads may sit in a blocked read; nothing is left to save


if __name__ == "__main__":
    main()
