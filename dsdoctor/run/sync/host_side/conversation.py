"""The conversation: one order a line from the head, one answer each, a pong for every ping whatever is being done."""

from __future__ import annotations

import binascii
import marshal
import os
import queue
import sys
import threading

from . import MARK, PING, PONG
from .folders import Folders
from .seen import room
from .words import as_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List

    Order = Dict[str, Any]

QUESTIONS = (
    *("home", "open", "look", "space", "sweep", "missing", "link", "note", "unlock"),
    *("knows", "hand", "handed"),
)
SILENCE = 60.0  # seconds without a word after which the head is gone


def answer_to(folders: Folders, order: Order) -> Order:
    """Do what one line asks; an error of the system is an answer, too."""
    questions = {name: getattr(folders, name) for name in QUESTIONS}
    try:
        return dict(questions[order["do"]](order))
    except OSError as error:
        path = error.filename if isinstance(error.filename, str) else ""
        return {"error": error.strerror or str(error), "errno": error.errno, "path": path, "room": room(path or "/")}


def converse(arguments: List[str], path: List[str]) -> None:
    """Answer line by line, until the head hangs up or has been silent for too long. An order is marshal's, in hex."""
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    writing = threading.Lock()

    def write(text: str) -> None:
        with writing:
            sys.stdout.write(text)
            sys.stdout.flush()

    def read() -> None:
        try:
            for line in sys.stdin.buffer:
                if line == PING:
                    write(PONG)  # at once
                lines.put(line)
        except OSError:
            pass
        lines.put(b"")

    threading.Thread(target=read, daemon=True).start()
    folders = Folders()
    try:
        while True:
            line = lines.get(timeout=SILENCE)
            if not line:
                break
            if line != PING:
                order = marshal.loads(binascii.unhexlify(line.strip()))  # from the head, whose code this is
                write("\n" + MARK + as_json(answer_to(folders, order)) + "\n")
    except (queue.Empty, OSError):
        pass
    finally:
        folders.close()
    sys.stdout.flush()
    os._exit(0)  # the reader may sit in a read that never ends
