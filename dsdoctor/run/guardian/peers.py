"""Guardians of a detached run that hear of each other, so that one host's failure ends the others without a head.

Ranks whose peers have died wait in their collective: gloo's fail within seconds, NCCL's hold the GPUs until a watchdog
ends them, if one does. While a head lives it stops every host; what is here waits for as long as a living head needs.

The guardian of the first host listens at the address where the ranks meet, at the first free one of the order's ports;
every other guardian holds a line to it. What it hears of one host it tells all others. A host of which nothing is heard
for twice the lifeline is lost, for the others as for a head. Lines are signed with a key of the attempt's own, which
came with the order and is on no disk. One that never came to be (a firewall) accuses nobody; it is said once.
When the first host's own part has ended well its guardian lingers, since the others hear each other through it.
"""

import contextlib
import socket
import threading
import time
from typing import Any, Callable, Dict, List, Optional

from dsdoctor.run.guardian.line import LINE_SECONDS, Line, Word
from dsdoctor.run.guardian.programs import begun

BEAT_SECONDS = 2.0
HEAD_SECONDS = 2.0  # with half a lifeline: what a living head has to stop this host before its guardian does
WORD_SECONDS = 6.0  # for the last word, when there is no line at the time
UNREACHED_SECONDS = 60.0  # after which it is said that the first host's guardian was never reached
ABOUT_SILENCE = ("look", "looked", "stall", "over")


class Peers:
    """The other guardians of an attempt, as this one hears of them.

    `order`: name (of this host), first (whether it listens), addr, ports, key (hex), hosts (how many guard).
    `lifeline`: seconds. `ends` is called with the host to blame and why, when this host is to stop because of it.
    `note` takes a remark. With `pace` every beat tells how this host's ranks go on, and `takes` is given the words
    that are about that.
    """

    def __init__(
        self, order: Dict[str, Any], lifeline: float, ends: Callable[[str, str], None], note: Callable[[str], None]
    ) -> None:
        self.order, self.limit, self.patience = order, 2 * lifeline, HEAD_SECONDS + lifeline / 2
        self.ends, self.note = ends, note
        self._key = bytes.fromhex(order["key"])
        self._began = time.monotonic()
        self._lines: Dict[str, Line] = {}  # by host
        self._heard: Dict[str, float] = {}  # when, of every host that was ever heard of
        self.pace: Optional[Callable[[], Dict[str, Any]]] = None
        self.takes: Optional[Callable[[Word], None]] = None
        self._paces: Dict[str, "tuple[float, Dict[str, Any]]"] = {}  # by host, and when it was heard
        self._over: "set[str]" = set()  # hosts whose part ended well
        self._ended: "set[str]" = set()  # hosts whose part ended, well or not
        self._failed: Optional[Word] = None  # the first failure that was told
        self._failed_at = 0.0
        self._own: Optional[Word] = None  # how our own part ended
        self._lock = threading.Lock()

    def start(self) -> None:
        """Begin to listen, or to call; nothing here waits."""
        for work in (self._listen if self.order["first"] else self._call, self._beat, self._judge):
            begun(work)

    def tell_end(self, failure: Optional[str]) -> None:
        """Tell the others how this host's part ended: `failure` says why, None that it went well.

        Waits for the line to the first host for at most `WORD_SECONDS`, where it was not drawn yet or has just broken.
        """
        word = {"host": self.order["name"], **({"done": True} if failure is None else {"failed": failure})}
        self._own = word  # what a line that is drawn from now on begins with
        if failure is None and not self._heard:
            return  # nobody who ever heard of this host will miss it
        until = time.monotonic() + WORD_SECONDS
        while not self._lines and not self.order["first"] and time.monotonic() < until:
            time.sleep(0.05)
        self.say(word)

    @property
    def lingers(self) -> bool:
        """Whether this is the first host, and its own part has ended well."""
        return bool(self.order["first"]) and "done" in (self._own or {})

    def linger(self, ended: Callable[[], bool]) -> None:
        """On the first host, once its own part ended well: pass words on until every other host's part has ended.

        A host that falls silent meanwhile is told the others as failed, and one that was not heard of yet may still
        come. `ended` is looked at: somebody wants an end.
        """
        while self.lingers and not ended():
            now = time.monotonic()
            may_come = len(self._heard) < self.order["hosts"] - 1 and now - self._began < self.limit
            with self._lock:
                open_still = {name: now - at for name, at in self._heard.items() if name not in self._ended}
            for name in sorted(open_still):
                if open_still[name] > self.limit:
                    self._ended.add(name)
                    why = "nothing was heard of it for %.0f s" % self.limit
                    self._take(name, {"host": name, "failed": why})
            if not open_still and not may_come:
                return
            time.sleep(0.1)

    # --- how the others' ranks go on

    def names(self) -> List[str]:
        """The hosts that have been heard of and whose part has not ended."""
        with self._lock:
            return sorted(name for name in self._heard if name not in self._ended)

    def paces(self, now: float) -> List[Dict[str, Any]]:
        """How the ranks of these hosts go on, as it is by now."""
        found = []
        for name in self.names():
            if name in self._paces:
                at, pace = self._paces[name]
                step_ago = None if pace["step_ago"] is None else pace["step_ago"] + now - at
                found.append(dict(pace, silent=pace["silent"] + now - at, step_ago=step_ago))
        return found

    # --- lines

    def _listen(self) -> None:
        server = self._server()
        if server is None:
            ports = ", ".join(map(str, self.order["ports"]))
            return self.note("the guardians cannot hear of each other: ports %s are all taken here" % ports)
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                time.sleep(1)
                continue
            begun(lambda connection=connection: self._answer(connection))  # type: ignore[misc]

    def _server(self) -> Optional[socket.socket]:
        family = socket.AF_INET6 if ":" in self.order["addr"] else socket.AF_INET
        for port in self.order["ports"]:
            for address in (self.order["addr"], ""):  # the address may be one that is translated on the way
                server = socket.socket(family, socket.SOCK_STREAM)
                server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    server.bind((address, port))
                    server.listen(self.order["hosts"] + 8)
                except OSError:
                    server.close()
                else:
                    return server
        return None

    def _answer(self, connection: socket.socket) -> None:
        """A line from another guardian, to its end."""
        try:
            line = Line(connection, self._key, listens=True)
            name = str(line.receive()["host"])
        except (OSError, KeyError):
            connection.close()
        else:
            self._follow(name, line)

    def _call(self) -> None:
        """Hold a line to the first host's guardian, drawn anew whenever it breaks."""
        began, told, pause = time.monotonic(), False, 0.1
        while True:
            for port in self.order["ports"]:
                try:
                    connection = socket.create_connection((self.order["addr"], port), timeout=LINE_SECONDS)
                except OSError:
                    continue
                try:
                    line = Line(connection, self._key, listens=False)
                    line.send({"host": self.order["name"]})
                    name = str(line.receive()["host"])
                except (OSError, KeyError):
                    connection.close()
                else:
                    self._follow(name, line)
                    break
            if not told and not self._heard and time.monotonic() - began > UNREACHED_SECONDS:
                told = True
                self.note(
                    "the guardian of the first host is not reached at %s, ports %s: without a head nothing would end "
                    "this host when another fails" % (self.order["addr"], ", ".join(map(str, self.order["ports"])))
                )
            time.sleep(pause)
            pause = min(2 * pause, BEAT_SECONDS)

    def _follow(self, name: str, line: Line) -> None:
        with self._lock:
            before, self._lines[name] = self._lines.get(name), line
            self._heard[name] = time.monotonic()
        if before is not None:
            before.close()
        try:
            line.send({"host": self.order["name"]})
            for word in (self._own, self._failed):  # said while there was no line
                if word is not None:
                    line.send(word)
            while True:
                self._take(name, line.receive())
        except OSError:
            pass
        line.close()
        with self._lock:
            if self._lines.get(name) is line:
                del self._lines[name]

    def _beat(self) -> None:
        while True:
            time.sleep(BEAT_SECONDS)
            pace = {} if self.pace is None else {"pace": self.pace()}
            self.say({"host": self.order["name"], **pace})

    def say(self, word: Word, but: str = "") -> None:
        """Say a word on every line that there is, but to one host."""
        with self._lock:
            lines: List[Line] = [line for name, line in self._lines.items() if name != but]
        for line in lines:
            with contextlib.suppress(OSError):
                line.send(word)

    # --- judging

    def _take(self, name: str, word: Word) -> None:
        self._heard[name] = time.monotonic()
        if word.get("done"):
            self._over.add(str(word.get("host")))
        if word.get("done") or word.get("failed"):
            self._ended.add(str(word.get("host")))
        if isinstance(word.get("pace"), dict):
            self._paces[name] = time.monotonic(), word["pace"]
        elif self.takes is not None and any(about in word for about in ABOUT_SILENCE):
            self.takes(word)
        if word.get("failed") and self._failed is None and word.get("host") != self.order["name"]:
            self._failed, self._failed_at = word, time.monotonic()
            if self.order["first"]:
                self.say(word, but=name)

    def _judge(self) -> None:
        """End this host's part because of another's, when no head has."""
        while self._own is None:  # else it ends anyway
            time.sleep(1)
            now, failed = time.monotonic(), self._failed
            with self._lock:
                silent = sorted(name for name, at in self._heard.items() if self._missed(name, now - at))
            if failed is not None and now - self._failed_at >= self.patience:
                why = "%s failed (%s), and no head stopped this host within %.0f s"
                self.ends(str(failed["host"]), why % (failed["host"], failed["failed"], self.patience))
                return
            if failed is None and silent:
                why = "nothing was heard of %s for %.0f s, and no head stopped this host"
                self.ends(silent[0], why % (", ".join(silent), self.limit))
                return

    def _missed(self, name: str, silence: float) -> bool:
        """Whether a host is silent for too long whose part has not ended."""
        return silence > self.limit and name not in self._over
