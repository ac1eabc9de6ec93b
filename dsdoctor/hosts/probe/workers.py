"""Working through the sections, in forked processes that may crash or hang."""

from __future__ import annotations

import json
import os
import select
import signal
import time

from .files import ProbeError
from .programs import PATIENCE, PROGRAM_SECONDS
from .question import Ask
from .sections import SECTIONS
from .stopping import STARTING, WORKING, ending, started, stop_working

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

SECTION_SECONDS = 10.0  # for one section


def clean(value: Any) -> Any:
    """The value with nothing in it that JSON or UTF-8 has no word for: undecodable bytes are written in hex."""
    if isinstance(value, str):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            return os.fsencode(value).decode("utf-8", "backslashreplace") if encodable(value) else ascii(value)[1:-1]
        return value
    if isinstance(value, float):
        return value if value - value == 0 else None  # NaN and the infinities
    if isinstance(value, dict):
        return {clean(str(key)): clean(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [clean(item) for item in value]
    return value


def encodable(text: str) -> bool:
    """Whether a text came from undecodable bytes, rather than from anywhere with half a surrogate pair."""
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return False
    return True


def examined(name: str, ask: Ask) -> dict[str, Any]:
    """One section: its value or its error, and the seconds it took. Nothing that a section raises gets out."""
    begun = time.monotonic()
    try:
        outcome = {"value": clean(SECTIONS[name][1](ask))}
        json.dumps(outcome)
    except ProbeError as failure:
        outcome = {"error": clean(str(failure))}
    except BaseException as failure:
        outcome = {"error": clean("%s: %s" % (type(failure).__name__, failure))[:500]}
    outcome["seconds"] = round(time.monotonic() - begun, 4)
    return outcome


class Worker:
    """A forked process that works through the sections of one group and reports each as it begins and ends."""

    def __init__(self, names: list[str]) -> None:
        self.names = list(names)  # not reported yet
        self.begun = time.monotonic()  # the section it is at
        self.pid = -1
        self.pipe = -1
        self.rest = b""

    def start(self, ask: Ask, others: Iterable[Worker]) -> None:
        """Fork. Raises OSError when the system allows no further process."""
        inward, outward = os.pipe()
        STARTING.append(0)
        try:
            self.pid = os.fork()
        except OSError:
            os.close(inward)
            os.close(outward)
            started()
            raise
        if self.pid == 0:
            try:
                del STARTING[:]
                for other in others:
                    os.close(other.pipe)
                os.close(inward)
                self.work(ask, outward)
            finally:
                os._exit(0)
        os.close(outward)
        WORKING.append(self.pid)
        started()
        self.pipe, self.begun = inward, time.monotonic()

    def work(self, ask: Ask, outward: int) -> None:
        """In the child: no hold on the probe's own input and outputs, then section by section."""
        silence = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(silence, stream)
        WORKING.clear()  # the others are the parent's
        for name in self.names:
            tell(outward, {"begun": name})
            tell(outward, {"name": name, "section": examined(name, ask)})

    def hear(self, sections: dict[str, Any]) -> bool:
        """Take what has come; False at the end of the stream."""
        chunk = os.read(self.pipe, 1 << 16)
        lines = (self.rest + chunk).split(b"\n")
        self.rest = lines.pop()
        for line in lines:
            message = json.loads(line.decode("ascii"))
            self.begun = time.monotonic()
            if "section" in message:
                sections[message["name"]] = message["section"]
                self.names.remove(message["name"])
        return bool(chunk)

    def end(self) -> str:
        """Close the stream, end the process if it still runs, and say how it ended."""
        os.close(self.pipe)
        for attempt_signal, patience in ((0, 0.05), (signal.SIGTERM, 0.2), (signal.SIGKILL, 0.5)):
            if attempt_signal:
                os.kill(self.pid, attempt_signal)
            until = time.monotonic() + patience
            while time.monotonic() < until:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                if pid:
                    WORKING.remove(pid)
                    return ending(status)
                time.sleep(0.002)
        return "cannot be killed: it hangs inside the kernel"


def tell(pipe: int, message: dict[str, Any]) -> None:
    """Send one message to the parent."""
    data = json.dumps(message).encode("ascii") + b"\n"
    while data:
        data = data[os.write(pipe, data) :]


def survey(ask: Ask) -> dict[str, Any]:
    """All sections, each group in its own process; in this one where no process can be forked."""
    groups: dict[str, list[str]] = {}
    for name in ask.sections:
        groups.setdefault(SECTIONS[name][0], []).append(name)
    sections: dict[str, Any] = {}
    workers: list[Worker] = []
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # a parent that ignores it would have our children forgotten
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, stop_working)
    limit = min(SECTION_SECONDS, ask.timeout / 2)  # what follows a section that hangs still has time
    PATIENCE["program"] = min(PROGRAM_SECONDS, limit / 2)  # and so has the section whose program hangs
    for names in groups.values():
        begin(names, ask, workers, sections)
    poller = select.poll()
    while workers:
        until = min([ask.deadline] + [worker.begun + limit for worker in workers])
        for worker in workers:
            poller.register(worker.pipe, select.POLLIN | select.POLLHUP)
        ready = {pipe for pipe, _ in poller.poll(max(0, int((until - time.monotonic()) * 1000) + 1))}
        for worker in workers:
            poller.unregister(worker.pipe)
        for worker in list(workers):
            if worker.pipe in ready and worker.hear(sections):
                continue
            late = time.monotonic() >= min(ask.deadline, worker.begun + limit)
            if worker.pipe in ready or late:
                workers.remove(worker)
                how = worker.end()
                reason = "no answer within %.1f seconds" % limit if late else "its process " + how
                give_up(worker.names, reason, ask, workers, sections)
    return {name: sections[name] for name in ask.sections}


def begin(names: list[str], ask: Ask, workers: list[Worker], sections: dict[str, Any]) -> None:
    """Start a worker on the sections, or do them here when the system allows no further process."""
    worker = Worker(names)
    try:
        worker.start(ask, workers)
    except OSError:
        for name in names:
            sections[name] = examined(name, ask)
        return
    workers.append(worker)


def give_up(names: list[str], reason: str, ask: Ask, workers: list[Worker], sections: dict[str, Any]) -> None:
    """Of the sections that an ended worker left, the first is the one that ended it; the others are begun anew."""
    if not names:
        return
    sections[names[0]] = {"error": reason, "seconds": 0.0}
    if ask.left() > 0.05:
        if names[1:]:
            begin(names[1:], ask, workers, sections)
        return
    for name in names[1:]:
        sections[name] = {"error": "no time was left for it", "seconds": 0.0}
