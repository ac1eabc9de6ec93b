"""Noticing a stall of a detached run while no head does, by a head's rule, and doing what a head would.

Each guardian takes its ranks' lines and tells the first host's with every beat how long they have been silent. That one
judges all of them together (`dsdoctor.logs.standstill`), has every host look at its ranks, and says what it found. Each
host keeps it: in frames, from which the next head has the stacks and the words, and in the spool's `stall` file, which
`status` is told of. With `stop` the first host's guardian ends its part for it, and the others theirs because of that.
"""

import threading
import time
from typing import Any, Callable, Dict, List, Optional

from dsdoctor.logs.stacks import Frame, Look, Standing, judge, looks_of
from dsdoctor.logs.standstill import FROM_FAULTHANDLER, TOLD_STALLS, Standstill
from dsdoctor.logs.training import Training
from dsdoctor.run.guardian.line import Word
from dsdoctor.run.guardian.looking import LOOK_SECONDS, in_parts, look_here
from dsdoctor.run.guardian.peers import Peers
from dsdoctor.run.guardian.programs import begun

TICK = 1.0
FRAMES_TOLD = 40  # of a rank's stack, to the first host


class Together:
    """The pace of all hosts as the first one hears of it."""

    def __init__(self, paces: List[Dict[str, Any]], now: float) -> None:
        steps = [pace for pace in paces if pace["step_ago"] is not None]
        self.sign = now - min(pace["silent"] for pace in paces)
        self.step: Optional[int] = max((pace["step"] for pace in steps if pace["step"] is not None), default=None)
        self.last_step_at = now - min(pace["step_ago"] for pace in steps) if steps else None
        self._gap = max((pace["gap"] for pace in steps if pace["gap"] is not None), default=None)

    def usual_gap(self) -> Optional[float]:
        """The longest of the hosts'."""
        return self._gap


class Silence:
    """One guardian's watch over its ranks, and, on the first host, over all.

    Args:
        order: `host`, `first` (whether this one judges), `stall_after` (seconds, None: ten times the usual, 0: never),
            `stop` (whether a stall ends the run), `spool`.
        peers: the other guardians, None for a run of one host.
        headless: whether no head follows.
        send: takes frames.
        record: puts what is known of the stall where `status` finds it; None takes it away.
        stop: ends this host's part, with the reason.
    """

    def __init__(
        self,
        order: Dict[str, Any],
        peers: Optional[Peers],
        headless: Callable[[], bool],
        send: Callable[[Dict[str, Any]], None],
        record: Callable[[Optional[Dict[str, Any]]], None],
        stop: Callable[[str], None],
    ) -> None:
        self.order, self.peers, self.headless = order, peers, headless
        self.send, self.record, self.stop = send, record, stop
        self.rule = Standstill(order["stall_after"])
        self._training, self._lock = Training(), threading.Lock()
        self._sign = time.monotonic()
        self._step_seen: Optional[float] = None
        self._answer: Dict[str, Any] = {}  # what was last seen of the ranks here
        self._own_look = False  # whether they are being looked at
        self._look: Optional[Dict[str, Any]] = None  # on the first host: the look under way
        self._stalled = False
        self._stalls = 0
        if peers is not None:
            peers.pace, peers.takes = self.pace, self.take

    def line(self, rank: Optional[int], text: str) -> None:
        """Take a line of a rank, or the state of its bar."""
        if self._own_look and FROM_FAULTHANDLER.match(text):
            return  # asked for by ourselves
        with self._lock:
            self._sign = time.monotonic()
            for _ in self._training.feed(self.order["host"], rank, text, self._sign):
                pass  # a head says these

    def pace(self) -> Dict[str, Any]:
        """How it goes on here."""
        with self._lock:
            now, training = time.monotonic(), self._training
            step_ago = None if training.last_step_at is None else now - training.last_step_at
            return {
                "silent": now - self._sign,
                "step": training.step,
                "step_ago": step_ago,
                "gap": training.usual_gap(),
            }

    def watch(self) -> None:
        """Judge, on the first host, until this process ends."""
        self.rule.sign = time.monotonic()
        while self.order["first"] and self.rule.given != 0:
            time.sleep(TICK)
            self.tick(time.monotonic())

    def tick(self, now: float) -> None:
        """Do what time asks for."""
        paces = [self.pace(), *(self.peers.paces(now) if self.peers is not None else ())]
        all_of_them = Together(paces, now)
        before = self.rule.sign if self._step_seen is None else self._step_seen
        stepped = all_of_them.last_step_at is not None and (
            self._step_seen is None or all_of_them.last_step_at > self._step_seen + TICK / 2
        )
        alive = all_of_them.sign > self.rule.sign + TICK / 2  # ages of the same line differ by the way they took
        if stepped:
            self._step_seen = all_of_them.last_step_at
        if alive or stepped:
            self.rule.heard(max(all_of_them.sign, self.rule.sign), stepped)
        if self._stalled and (stepped or (alive and all_of_them.last_step_at is None)):
            self.tell({"over": round(max(all_of_them.sign, self._step_seen or 0) - before)})
        elif self._look is not None:
            self._take_look(all_of_them, now)
        elif self.headless() and not self._stalled and self._stalls < TOLD_STALLS and self.rule.due(all_of_them, now):
            self._begin_look(now)

    # --- looking

    def _begin_look(self, now: float) -> None:
        names = self.peers.names() if self.peers is not None else []
        self._look = {"at": now, "waiting": set(names) | {self.order["host"]}, "looks": []}
        if self.peers is not None:
            self.peers.say({"host": self.order["host"], "look": True})
        begun(self._look_here)

    def _look_here(self) -> None:
        self._own_look = True
        try:
            self._answer = look_here(self.order["spool"])
        finally:
            self._own_look = False
        looks = [_told(look) for look, _ in looks_of(self.order["host"], self._answer)]
        word = {"host": self.order["host"], "looked": looks, "problem": self._answer.get("problem")}
        if self.order["first"]:
            self.take(word)
        elif self.peers is not None:
            self.peers.say(word)

    def _take_look(self, pace: Together, now: float) -> None:
        look = self._look
        assert look is not None
        if look["waiting"] and now - look["at"] < LOOK_SECONDS + 15:
            return
        self._look = None
        hidden = sorted(look["waiting"])
        unheard = self.peers.order["hosts"] - 1 - len(self.peers.names()) if self.peers is not None else 0
        if unheard > 0:
            hidden.append("%d hosts whose guardians are not heard" % unheard)
        if self.rule.went_on(pace, look["at"]):
            return
        standing = judge(look["looks"], hidden)
        if self.rule.is_stall(standing):
            self._stall(standing, pace, now)

    def _stall(self, standing: Standing, pace: Together, now: float) -> None:
        self._stalls += 1
        behind = standing.behind
        text = "%s: %s" % (self.rule.stall_words(pace, now), standing.text)
        self.tell(
            {
                "stall": text,
                "of": self.order["host"] if behind is None else behind.host,
                "rank": None if behind is None else behind.rank,
            }
        )
        if not self.order["stop"]:
            return
        if self.peers is not None and self.peers.lingers:  # there is nothing here any more that could be ended
            self.peers.say({"host": self.order["host"], "failed": "it " + text})
        else:
            self.stop("it " + text)

    # --- what all are told

    def tell(self, word: Word) -> None:
        """Say something to all guardians, this one too."""
        if self.peers is not None:
            self.peers.say(dict(word, host=self.order["host"]))
        self.take(word)

    def take(self, word: Word) -> None:
        """Take a word of another guardian's, or one of our own."""
        if word.get("look") and not self._own_look:
            begun(self._look_here)
        elif "looked" in word and self._look is not None and word["host"] in self._look["waiting"]:
            if not word.get("problem"):
                self._look["waiting"].discard(word["host"])
            self._look["looks"] += [_look_of(told) for told in word["looked"]]
        elif word.get("stall"):
            self._stalled = True
            text = str(word["stall"])
            for part in in_parts(self._answer):
                self.send({"e": "look", **part})
            if self.order["first"]:
                self.send(
                    {"e": "stall", "host": word["of"], "r": word["rank"], "text": text, "stop": self.order["stop"]}
                )
            self.record({"text": text, "began": time.time()})
        elif "over" in word:
            self._stalled = False
            if self.order["first"]:
                self.send({"e": "stall_over", "seconds": word["over"]})
            self.record(None)


def _told(look: Look) -> Dict[str, Any]:
    """What a host tells of one of its ranks."""
    return dict(vars(look), frames=[list(frame) for frame in look.frames[:FRAMES_TOLD]])


def _look_of(told: Dict[str, Any]) -> Look:
    return Look(**dict(told, frames=tuple(Frame(*frame) for frame in told["frames"])))
