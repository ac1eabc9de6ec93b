"""What starts on a host: reads its order from standard input, and becomes a keeper, a follower, or answers and ends.

The first line after the source is the order (JSON); its `do` is one of `ORDERS`, `guard` without it.
Further lines are commands. What is written is one JSON object a line after a marker line.
"""

import json
import os
import sys
import time
from typing import Any, Callable, Dict, Iterator, List

from dsdoctor.run.guardian import MARKER
from dsdoctor.run.guardian.follower import Follower, end_guardian, lives
from dsdoctor.run.guardian.keeper import keep
from dsdoctor.run.guardian.left_behind import end_left_behind, left_behind
from dsdoctor.run.guardian.peers import WORD_SECONDS
from dsdoctor.run.guardian.process_table import stat_of
from dsdoctor.run.guardian.spool import ROOM, encoded, read_json, remove, take_room


def main() -> None:
    """Read the order, announce, carry it out."""
    control = sys.stdin.buffer
    order = json.loads(control.readline().decode("utf-8"))
    sys.stdout.buffer.write(("\n" + MARKER + "\n").encode("ascii"))  # a login shell may have left a line unfinished
    sys.stdout.buffer.flush()
    code = ORDERS[order.get("do", "guard")](order)
    sys.stdout.flush()
    os._exit(code)  # daemon threads may sit in a blocked read; nothing is left to save


def guard(order: Dict[str, Any]) -> int:
    """Guard a job: here, or, detached, in a process of its own that is then followed."""
    for spool in others(order):
        end_guardian(spool, order["grace_seconds"], "another attempt begins", beat)
    if order.get("spool"):
        end_left_behind(os.path.dirname(os.path.dirname(order["spool"])), order["grace_seconds"])
        beat()
    if not order.get("detach"):
        return keep(order, sys.stdin.buffer, sys.stdout.buffer)
    if read_json(order["spool"], "identity") is None:
        try:
            take_room(order["spool"])
        except OSError as error:
            text = "%s cannot be made with %d kB in it (%s), and a detached run needs that: it is heard through it"
            text = text % (order["spool"], ROOM // 1024, error.strerror)
            sys.stdout.buffer.write(encoded({"e": "error", "text": text}))
            return 1
        beat()
        detach(order)
    return follow(dict(order, offset=0, patience_seconds=order["lifeline_seconds"]))


def beat() -> None:
    """A sign of life between two things that may take long on a busy host or a slow disk."""
    sys.stdout.buffer.write(encoded({"e": "beat", "now": time.monotonic()}))
    sys.stdout.buffer.flush()


def detach(order: Dict[str, Any]) -> None:
    """Start the keeper as a process of its own: a session without a terminal, no stream of ours held open."""
    first = os.fork()
    if first:
        os.waitpid(first, 0)
        return
    code = 1
    try:
        os.setsid()
        if os.fork():
            code = 0
            return  # through finally
        null = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(null, stream)
        code = keep(order, None, None)
    finally:
        os._exit(code)


def follow(order: Dict[str, Any]) -> int:
    """Follow a guardian that was left alone."""
    return Follower(order, sys.stdin.buffer, sys.stdout.buffer).run()


def others(order: Dict[str, Any]) -> Iterator[str]:
    """The spools of this host's earlier guardians of the run that still live: attempts whose head was lost."""
    if not order.get("spool"):
        return
    for spool in spools(os.path.dirname(os.path.dirname(order["spool"])), os.path.basename(order["spool"])):
        if spool != order["spool"] and lives(read_json(spool, "identity") or {}):
            yield spool


def spools(guards: str, host: str) -> List[str]:
    """All spools of a host below a run's `guard` folder, by the time that they were made."""
    try:
        found = [os.path.join(guards, attempt, host) for attempt in os.listdir(guards)]
        return sorted((each for each in found if os.path.isdir(each)), key=lambda each: os.stat(each).st_ctime)
    except OSError:
        return []


def look(order: Dict[str, Any]) -> int:
    """Tell of every guardian of a run on this host: alive, since when, its last words, how it ended."""
    for spool in spools(order["guards"], order["host"]):
        proofs = read_json(spool, "identity") or {}
        state = stat_of(int((proofs.get("guardian") or {}).get("pid") or 0))
        told = {
            "attempt": os.path.basename(os.path.dirname(spool)),
            "alive": lives(proofs) and read_json(spool, "end") is None,  # else it only says its last word, or lingers
            "stopped": bool(state) and state[0] in (b"T", b"t"),
            "pid": (proofs.get("guardian") or {}).get("pid"),
            "seconds": time.time() - float(proofs.get("began") or time.time()),
            "quiet": quiet(os.path.join(spool, "frames")),
            "end": read_json(spool, "end"),
            "stall": read_json(spool, "stall"),
        }
        sys.stdout.buffer.write(encoded(told))
    sys.stdout.buffer.write(encoded({"left_behind": len(left_behind(order["guards"]))}))
    return 0


def quiet(path: str) -> float:
    """Seconds since the last line was written, -1 when there is none."""
    try:
        return max(0.0, time.time() - os.stat(path).st_mtime)
    except OSError:
        return -1.0


def stop(order: Dict[str, Any]) -> int:
    """End every guardian of a run on this host, or that of one attempt; tells of each that lived whether it is gone.

    Then what no guardian owns any more, which is told with its number.
    """
    for spool in spools(order["guards"], order["host"]):
        attempt = os.path.basename(os.path.dirname(spool))
        if order.get("attempt") in (None, attempt) and lives(read_json(spool, "identity") or {}):
            gone = end_guardian(spool, order["grace_seconds"], "told to")
            sys.stdout.buffer.write(encoded({"attempt": attempt, "gone": gone}))
    count = end_left_behind(order["guards"], order["grace_seconds"])
    sys.stdout.buffer.write(encoded({"left_behind": count, "gone": not left_behind(order["guards"])}))
    return 0


def clear(order: Dict[str, Any]) -> int:
    """Take the spools of a run on this host away, or those of some attempts; one with a living guardian stays."""
    removed = 0
    for spool in spools(order["guards"], order["host"]):
        attempt = os.path.basename(os.path.dirname(spool))
        if attempt in (order.get("attempts") or [attempt]) and is_over(spool):
            try:
                remove(spool)
                removed += 1
            except OSError:
                continue
    left = len(spools(order["guards"], order["host"]))
    sys.stdout.buffer.write(encoded({"removed": removed, "left": left}))
    return 0


def is_over(spool: str) -> bool:
    """Whether a spool's guardian is gone; one that has said its last word is waited for."""
    until = time.monotonic() + WORD_SECONDS + 4
    while lives(read_json(spool, "identity") or {}):
        if read_json(spool, "end") is None or time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


ORDERS: Dict[str, Callable[[Dict[str, Any]], int]] = {
    "guard": guard,
    "follow": follow,
    "look": look,
    "stop": stop,
    "clear": clear,
}
