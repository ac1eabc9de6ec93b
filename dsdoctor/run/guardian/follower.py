"""The follower: a head's line to a guardian that was left alone. It reads the spool and passes commands on.

It owns nothing: when its line goes it ends, and the guardian goes on.
"""

import contextlib
import json
import os
import threading
import time
from typing import IO, Any, Callable, Dict, Optional

from dsdoctor.run.guardian import process_table
from dsdoctor.run.guardian.left_behind import end_left_behind
from dsdoctor.run.guardian.spool import Frames, ask_to_stop, encoded, read_json

COMING_UP = 30.0  # seconds that a guardian may take on a busy host until it says who it is
LAST = (b'{"e": "exit"', b'{"e": "error"')  # how the last frame begins; in a log line the quotes would be escaped


class Follower:
    """Reads one spool from `order["offset"]` on, writes its lines to `output` and beats in between."""

    def __init__(self, order: Dict[str, Any], control: IO[bytes], output: IO[bytes]) -> None:
        self.folder: str = order["spool"]
        self.offset: int = order["offset"]
        self.patience: float = order["patience_seconds"]  # for the guardian to come up, and for a head without a word
        self.control = control
        self.output = output
        self.last_word = time.monotonic()
        self.left = False  # the head has gone
        self._ended = False

    def run(self) -> int:
        """Follow to the guardian's end, or to the head's; returns the exit code."""
        threading.Thread(target=self.read_control, daemon=True).start()
        proofs = self.wait_for_identity()
        if proofs is None:
            self.say({"e": "gone", "text": "no guardian was started here (there is no %s)" % self.folder})
            return 0
        self.follow(Frames(self.folder, self.offset), proofs)
        return 0

    def wait_for_identity(self) -> Optional[Dict[str, Any]]:
        """Who guards, once that is written down."""
        deadline, beat_at = time.monotonic() + max(self.patience, COMING_UP), 0.0
        while not self.left:
            if time.monotonic() - beat_at >= 1:  # a busy host is slow, not silent
                beat_at = time.monotonic()
                self.beat()
            proofs = read_json(self.folder, "identity")
            if proofs is not None and os.path.exists(os.path.join(self.folder, "frames")):
                return proofs
            if time.monotonic() > deadline or not os.path.isdir(self.folder):
                return None
            time.sleep(0.05)
        return None

    def follow(self, frames: Frames, proofs: Dict[str, Any]) -> None:
        """Forward lines; when nothing more comes, see whether anybody is left to write them."""
        beat_at = 0.0
        self.beat()  # first: the clock that the lines' times are of
        while not self.left and not self._ended:
            if self.forward(frames):
                continue
            now = time.monotonic()
            if now - beat_at >= 1:
                beat_at = now
                if not lives(proofs):
                    while self.forward(frames):
                        pass  # what came between our last look and its end
                    if not self._ended:
                        self.say(self.how_it_ended(proofs))
                    return
                self.beat(True)
            self.left = self.left or now - self.last_word > self.patience
            time.sleep(0.05)

    def forward(self, frames: Frames) -> bool:
        """Write the whole lines that are there; False when there are none."""
        try:
            lines = frames.read()
        except OSError:
            return False  # the file is just being replaced, or a network's disk has hiccups
        if frames.gone:
            text = "%d kB of what was printed here are not kept any more: more came than a host keeps of a run"
            self.say({"e": "note", "text": (text + " (--spool-limit)") % max(1, frames.gone // 1024)})
            frames.gone = 0
        if lines:
            self._write(lines)
            self._ended = lines[:-1].rpartition(b"\n")[2].startswith(LAST)
        return bool(lines)

    def how_it_ended(self, proofs: Dict[str, Any]) -> Dict[str, Any]:
        """The last frame of a guardian whose spool does not have one."""
        end = read_json(self.folder, "end")
        if end is not None:
            return end
        now = process_table.boot_id(), process_table.namespace()
        then = proofs["guardian"].get("boot"), proofs["guardian"].get("table")
        if now != then:
            return {"e": "gone", "text": "the host was started anew meanwhile"}
        count = end_left_behind(os.path.dirname(os.path.dirname(self.folder)), self.patience / 4)
        more = "; %d processes that they left behind were ended" % count if count else ""
        return {"e": "gone", "text": "its guardian and its keeper were killed" + more}

    def read_control(self) -> None:
        """Take commands; the end of the line ends the follower alone."""
        for line in self.control:
            self.last_word = time.monotonic()
            with contextlib.suppress(OSError):
                os.utime(os.path.join(self.folder, "followed"))
            try:
                command = json.loads(line.decode("utf-8")).get("c")
            except (ValueError, AttributeError):
                continue
            if command == "stop":
                try:
                    ask_to_stop(self.folder, "told to")
                except OSError as error:
                    self.signal_instead(error)
        self.left = True

    def signal_instead(self, error: OSError) -> None:
        """A full or read-only disk takes no stop file: the guardian, proven to be the one, is signalled."""
        proofs = read_json(self.folder, "identity") or {}
        proof = proofs.get("guardian") or {}
        if process_table.is_alive(proof):
            process_table.send_signal([proof["pid"]], 15)
        self.say({"e": "note", "text": "%s cannot be written (%s): signalled instead" % (self.folder, error.strerror)})

    def beat(self, caught_up: bool = False) -> None:
        """A sign of life with this host's clock; `caught_up` when everything that there is has been forwarded."""
        self.say({"e": "beat", "now": time.monotonic(), "caught_up": caught_up})

    def say(self, frame: Dict[str, Any]) -> None:
        """Write a frame of our own."""
        self._write(encoded(frame))

    def _write(self, data: bytes) -> None:
        try:
            self.output.write(data)
            self.output.flush()
        except (OSError, ValueError):
            self.left = True


def lives(proofs: Dict[str, Any]) -> bool:
    """Whether a guardian, or the keeper that finishes its work, is alive."""
    return any(process_table.is_alive(proofs.get(who) or {}) for who in ("guardian", "keeper"))


def end_guardian(folder: str, grace: float, why: str, beat: Callable[[], None] = lambda: None) -> bool:
    """Ask a guardian to stop and wait; one that does not react is signalled, if it is proven to be that one.

    `beat` is called about once a second meanwhile. Returns whether it is gone. Takes at most 3 times the
    grace (seconds) and some.
    """
    with contextlib.suppress(OSError):
        ask_to_stop(folder, why)
    for number in (None, 15, 9):
        proofs = read_json(folder, "identity") or {}
        proof = proofs.get("guardian") or {}
        if number is not None and process_table.is_alive(proof):
            process_table.send_signal([proof["pid"]], number)
        now = beat_at = time.monotonic()
        deadline = now + grace + 2
        while now < deadline:
            if not lives(proofs):
                return True
            if now - beat_at >= 1:
                beat_at = now
                beat()
            time.sleep(0.05)
            now = time.monotonic()
    return False
