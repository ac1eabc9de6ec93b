"""The guardian: owns the programs of one run on one host, and ends all of them when it is told or loses its head.

Attached, it takes commands and writes its frames over the line to the head, and ends the job when that line goes.
Detached, it has no line: frames go to its spool alone, the spool's `stop` file tells it to stop, and where no head
is it hears of the other hosts from their guardians (`peers`).

Every frame says when it was made (`m`: this host's monotonic clock, which its follower and its head's line share), so
that a head can put what happened on several hosts into its order without trusting anybody's time of day.
"""

import contextlib
import json
import os
import queue
import signal
import subprocess
import threading
import time
from typing import IO, Any, Dict, Optional

from dsdoctor.run.guardian import cgroup, process_table
from dsdoctor.run.guardian.peers import WORD_SECONDS, Peers
from dsdoctor.run.guardian.programs import Programs, begun, describe, remove_pipes
from dsdoctor.run.guardian.spool import Spool, encoded, remove, stop_asked

ANSWER_SECONDS = 2.0  # for a head that is busy; one that is gone is seen at once


class Guardian:
    """One order carried out: start, forward lines, beat, watch the lifeline, stop, report the exit.

    `control` and `output` are the line to the head, None for a detached one.
    """

    def __init__(self, order: Dict[str, Any], control: Optional[IO[bytes]], output: Optional[IO[bytes]]) -> None:
        self.order = order
        self.control = control
        self.output = output
        self.spool = Spool(order["spool"], order.get("spool_limit", 0)) if order.get("spool") else None
        self.frames: "queue.Queue[Optional[bytes]]" = queue.Queue(maxsize=2000)
        self.last_word = time.monotonic()
        self.stop_reason: Optional[str] = None
        self.blamed: Optional[str] = None  # another host, because of which this one stops
        self.peers = self._peers()
        self.silence = self._silence()
        self._followed = (0, time.monotonic())  # what the spool says of a head, and since when that is so
        self._telling: Optional[threading.Thread] = None
        self._answered, self._fetched = threading.Event(), False  # by the head, at the end: that it has every line
        self.oom_kills = process_table.oom_kills()
        self.programs = Programs(order, self.send)
        self._spool_lock = threading.Lock()
        self._spool_told: Optional[str] = None

    def _peers(self) -> Optional[Peers]:
        peers = self.order.get("peers")
        if not peers:
            return None
        lifeline = float(self.order["lifeline_seconds"])
        return Peers(peers, lifeline, self.ask_to_stop_because_of, lambda text: self.send({"e": "note", "text": text}))

    def _silence(self) -> Any:
        watch = self.order.get("watch")
        if not watch or self.spool is None:
            return None
        from dsdoctor.run.guardian.silence import Silence  # it loads what only detached runs need

        return Silence(watch, self.peers, self.headless, self.send, self.spool.write_stall, self.ask_to_stop)

    def headless(self) -> bool:
        """Whether no head has followed for a lifeline; a head does what is to be done itself."""
        assert self.spool is not None
        now, said = time.monotonic(), self.spool.followed_at()
        if said != self._followed[0]:
            self._followed = said, now
        return now - self._followed[1] > float(self.order["lifeline_seconds"])

    def run(self, keeper: Dict[str, Any]) -> int:
        """Carry the order out and return the exit code to end with. `keeper` is the identity of its keeper."""
        process_table.become_subreaper()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda seen, _: self.ask_to_stop(self.why_signalled(seen, keeper["pid"])))
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        if self.spool is not None:
            self.programs.group = cgroup.make()
            proofs = {"guardian": process_table.identity(os.getpid()), "keeper": keeper, "began": time.time()}
            proofs["cgroup"] = self.programs.group
            with contextlib.suppress(OSError):  # said with the first frame
                self.spool.write_identity(dict(proofs, host=os.uname().nodename))
        writer = threading.Thread(target=self.write_frames, daemon=True)
        try:
            self.programs.start()
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            writer.start()
            cgroup.remove(self.programs.group)
            self.send_last({"e": "error", "text": describe(error, self.order)})
            self.finish(writer)
            return 127
        writer.start()
        for work in (self.read_control, self.watch_stop_file):
            threading.Thread(target=work, daemon=True).start()
        self.programs.follow()
        if self.peers is not None:
            self.peers.start()
        if self.silence is not None:
            begun(self.silence.watch)
        code = self.watch()
        self.programs.drain(2)
        remove_pipes(self.order)
        cgroup.remove(self.programs.group)
        self.send_last(
            {
                "e": "exit",
                "code": code,
                "stopped": self.stop_reason,
                "peer": self.blamed,
                "left": len(process_table.descendants()),
                "oom_kills": None if self.oom_kills is None else (process_table.oom_kills() or 0) - self.oom_kills,
            }
        )
        self.finish(writer)
        self.clear_up()
        return 0

    def why_signalled(self, number: int, keeper: int) -> str:
        """A TERM that comes without a keeper is the kernel's word of its end."""
        return "signal %d" % number if os.getppid() == keeper else "its keeper was killed"

    def watch(self) -> int:
        """Wait for the end of the command, beating and watching the lifeline; returns its exit code."""
        beat_at, limit = 0.0, self.order["lifeline_seconds"]
        while self.programs.code is None and self.stop_reason is None:
            self.programs.note_ended(process_table.reap())
            now = time.monotonic()
            if self.control is not None and now - self.last_word > limit:
                self.ask_to_stop("no word from the head for %.0f s" % limit)
            if now - beat_at >= 1:
                beat_at = now
                self.put(encoded({"e": "beat", "now": now}), wait=False)
            time.sleep(0.05)
        if self.stop_reason is not None:
            self.put(
                encoded({"e": "stopping", "why": self.stop_reason, "peer": self.blamed, "m": time.monotonic()}),
                wait=False,
            )
        self._telling = begun(self.tell_peers)  # before what it started ends: the others' ranks wait for it
        grace = self.order["grace_seconds"] if self.stop_reason else 1.0
        self.programs.note_ended(process_table.end_descendants(grace), ending=True)
        return -signal.SIGKILL if self.programs.code is None else self.programs.code

    def tell_peers(self) -> None:
        """Tell the other guardians how this host's part ends."""
        code = self.programs.code
        failure = "its ranks ended with code %d" % code if code else None
        if self.peers is not None:
            self.peers.tell_end(self.stop_reason or failure)

    def read_control(self) -> None:
        """Take commands until the head closes the line or goes silent."""
        if self.control is None:
            return
        for line in self.control:
            self.last_word = time.monotonic()
            try:
                command = json.loads(line.decode("utf-8")).get("c")
            except (ValueError, AttributeError):
                continue
            if command == "stop":
                self.ask_to_stop("told to")
            elif command == "fetched":
                self._fetched = True
                self._answered.set()
        self.ask_to_stop("the line to the head closed")
        self._answered.set()

    def watch_stop_file(self) -> None:
        """Look for the spool's stop file. A thread of its own: a network file system may hang."""
        while self.spool is not None and self.stop_reason is None:
            why = stop_asked(self.spool.folder)
            if why is not None:
                self.ask_to_stop(why)
            time.sleep(0.25)

    def stop_file_there(self) -> bool:
        """Whether somebody wants an end of what is over but for its lingering."""
        return self.spool is not None and stop_asked(self.spool.folder) is not None

    def ask_to_stop(self, reason: str) -> None:
        """Remember the first reason to stop; the watching loop acts on it."""
        if self.stop_reason is None:
            self.stop_reason = reason

    def ask_to_stop_because_of(self, host: str, reason: str) -> None:
        """Stop because of another host, which is to be blamed."""
        if self.stop_reason is None:
            self.blamed = host
            self.stop_reason = reason

    def send(self, frame: Dict[str, Any]) -> None:
        """Keep a frame in the spool and queue it for the head; one that reads too slowly holds the caller back."""
        if self.silence is not None and frame["e"] in ("line", "bar"):
            self.silence.line(frame.get("r"), frame["x"])
        self.put(self.spooled(frame))

    def spooled(self, frame: Dict[str, Any], lock_seconds: float = -1) -> bytes:
        """The frame's line, kept in the spool; that the spool cannot be written is told the head once."""
        frame["m"] = round(time.monotonic(), 3)
        if self.spool is None or not self._spool_lock.acquire(timeout=lock_seconds):
            return encoded(frame)
        try:
            line = self.spool.write(frame)
            problem = self.spool.problem
        finally:
            self._spool_lock.release()
        if problem is not None and self._spool_told != problem:
            text = "nothing more can be kept in %s (%s); the job goes on" % (self.spool.folder, problem)
            self.put(encoded({"e": "note", "text": text}), wait=False)
        self._spool_told = problem or self._spool_told
        return line

    def put(self, line: bytes, wait: bool = True) -> None:
        """Queue a line for the head."""
        if self.output is None:
            return
        with contextlib.suppress(queue.Full):
            self.frames.put(line, block=wait)

    def send_last(self, frame: Dict[str, Any]) -> None:
        """Queue the last frame; lines that nobody takes any more make room for it."""
        line = self.spooled(frame, lock_seconds=5)
        if self.spool is not None:
            self.spool.write_end(frame)
        try:
            self.frames.put(line, timeout=5)
            return
        except queue.Full:
            pass
        with contextlib.suppress(queue.Empty):
            while True:
                self.frames.get_nowait()
        self.put(line, wait=False)

    def write_frames(self) -> None:
        """Write queued frames; a broken line means that the head is gone."""
        while True:
            line = self.frames.get()
            if line is None:
                return
            if self.output is None:
                continue  # keep the readers going, so that nobody blocks on a full pipe
            try:
                self.output.write(line)
                self.output.flush()
            except (OSError, ValueError):
                self.output = None
                self.ask_to_stop("the line to the head broke")

    def clear_up(self) -> None:
        """Take the spool away where the head says that it has every line; it would else ask every host once more."""
        if self.spool is None or self.control is None or self.output is None:
            return
        self._answered.wait(timeout=ANSWER_SECONDS)
        if self._fetched:
            with contextlib.suppress(OSError, ValueError):
                remove(self.spool.folder)
                self.output.write(encoded({"e": "cleared"}))
                self.output.flush()

    def finish(self, writer: threading.Thread) -> None:
        """Let the last frames out, for as long as a living head and the other guardians need to take them."""
        with contextlib.suppress(queue.Full):
            self.frames.put(None, timeout=5)
            writer.join(timeout=5)
        if self._telling is not None:
            self._telling.join(timeout=WORD_SECONDS)
        if self.peers is not None:
            self.peers.linger(lambda: self.stop_reason is not None or self.stop_file_there())
