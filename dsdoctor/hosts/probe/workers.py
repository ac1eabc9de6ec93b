"""Working through the sections, in forked processes that may crash or hang.

One process does it all where nothing hangs: a fork costs more than most sections. The names of the sections stand in a
pipe, from which a process takes the next one when it is done with one; where it waits in one for long, another process
is started and goes on with the rest. However many hang, each section gets its turn: those that wait cost the others no
more than the moment after which somebody else goes on, and all that are given up are ended at the same time.
"""

from __future__ import annotations

import os
import select
import time

from .files import ProbeError
from .plain import dumps, signal
from .programs import PATIENCE, PROGRAM_SECONDS
from .question import Ask
from .sections import SECTIONS
from .stopping import STARTING, WORKING, ending, started, stop_working

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

SECTION_SECONDS = 10.0  # for one section
STALL_SECONDS = 0.25  # after which a section is not waited for by the others
# What a process gets to end by itself after its last word; after a signal to end, and after one that it cannot refuse.
PARTING, ENDING, DYING = 0.05, 0.2, 0.5


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


def examined(name: str, ask: Ask) -> str:
    """One section as JSON: its value or its error, and the seconds it took. Nothing that a section raises gets out."""
    begun = time.monotonic()
    try:
        outcome = '"value": %s' % json_text(SECTIONS[name](ask))
    except ProbeError as failure:
        outcome = '"error": %s' % dumps(clean(str(failure)))
    except BaseException as failure:
        said = clean("%s: %s" % (type(failure).__name__, failure))[:500]
        outcome = '"error": %s' % dumps(said + raised_at(failure))
    return '{%s, "seconds": %.4f}' % (outcome, time.monotonic() - begun)


def json_text(value: Any) -> str:
    """A value as JSON. Raises TypeError or ValueError for what it has no word for."""
    text = dumps(value)
    unclean = "\\ud" in text or "NaN" in text or "Infinity" in text
    return dumps(clean(value)) if unclean else text


def raised_at(failure: BaseException) -> str:
    """Where in the probe something was raised: its module and line."""
    place = ""
    trace = failure.__traceback__
    while trace is not None:
        module = str(trace.tb_frame.f_globals.get("__name__", ""))
        if module.startswith(__name__.rpartition(".")[0] + ".") and module != __name__:
            place = " (%s.py, line %d)" % (module.rpartition(".")[2], trace.tb_lineno)
        trace = trace.tb_next
    return place


def unlearnt(reason: str) -> str:
    """A section that nothing was learnt of, as JSON."""
    return '{"error": %s, "seconds": 0.0}' % dumps(reason)


class Worker:
    """A forked process that takes names out of a pipe and reports each section as it begins and ends.

    What it writes is a line of its own for each: the section's name, and behind that, when it has ended, its JSON.
    Each write wakes the parent, so the end of one and the beginning of the next go in one.
    """

    def __init__(self) -> None:
        self.name = ""  # the section it is at; none while it is on its way to its first, which takes no time of its own
        self.begun = time.monotonic()
        self.relieved = False  # whether another process was started because this one waits
        self.pid = -1
        self.pipe = -1
        self.rest = b""

    def start(self, ask: Ask, queue: int, others: Iterable[Worker]) -> None:
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
                self.work(ask, queue, outward)
            finally:
                os._exit(0)
        os.close(outward)
        WORKING.append(self.pid)
        started()
        self.pipe, self.begun = inward, time.monotonic()

    def work(self, ask: Ask, queue: int, outward: int) -> None:
        """In the child: no hold on the probe's own input and outputs, then section by section."""
        silence = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(silence, stream)
        WORKING.clear()  # the others are the parent's
        done = ""
        for name in waiting(ask, queue):
            tell(outward, done + name)
            done = "%s %s\n" % (name, examined(name, ask))
        if done:
            tell(outward, done[:-1])

    def hear(self, sections: dict[str, str]) -> bool:
        """Take what has come; False at the end of the stream."""
        chunk = os.read(self.pipe, 1 << 16)
        lines = (self.rest + chunk).split(b"\n")
        self.rest = lines.pop()
        for line in lines:
            self.begun, self.relieved = time.monotonic(), False
            name, blank, section = line.decode("ascii").partition(" ")
            self.name = "" if blank else name
            if blank:
                sections[name] = section
        return bool(chunk)


def ended(workers: list[Worker], gone: bool) -> list[str]:
    """Close the streams of processes and end them all at the same time; how each ended.

    Those whose stream has ended are `gone` or as good as that; the others are told to go.
    """
    found: dict[int, str] = {}
    for worker in workers:
        os.close(worker.pipe)
    for attempt_signal, patience in ((0, PARTING if gone else 0.0), (signal.SIGTERM, ENDING), (signal.SIGKILL, DYING)):
        waited = [worker.pid for worker in workers if worker.pid not in found]
        if attempt_signal:
            for pid in waited:
                os.kill(pid, attempt_signal)
        until = time.monotonic() + patience
        while waited:
            for pid in waited:
                there, status = os.waitpid(pid, os.WNOHANG)
                if there:
                    WORKING.remove(there)
                    found[there] = ending(status)
            waited = [pid for pid in waited if pid not in found]
            if not waited or time.monotonic() >= until:
                break
            time.sleep(0.0005)
    return [found.get(worker.pid, "cannot be killed: it hangs inside the kernel") for worker in workers]


def waiting(ask: Ask, queue: int) -> Iterator[str]:
    """The sections that nobody has begun, one after the other, whoever takes them: a byte in the pipe is a section."""
    while True:
        byte = os.read(queue, 1)
        if not byte:
            return
        yield ask.sections[byte[0]]


def tell(pipe: int, line: str) -> None:
    """Send one line to the parent."""
    data = line.encode("ascii") + b"\n"
    while data:
        data = data[os.write(pipe, data) :]


def survey(ask: Ask) -> dict[str, str]:
    """All sections, each as JSON; worked on in this process where no other can be forked."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # a parent that ignores it would have our children forgotten
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, stop_working)
    queue, filling = os.pipe()
    os.write(filling, bytes(range(len(ask.sections))))
    os.close(filling)
    try:
        sections = Survey(ask, queue).carried_out()
    finally:
        os.close(queue)
    return {name: sections.get(name) or unlearnt("no time was left for it") for name in ask.sections}


class Survey:
    """The workers at their sections."""

    def __init__(self, ask: Ask, queue: int) -> None:
        self.ask = ask
        self.queue = queue
        self.sections: dict[str, str] = {}
        self.workers: list[Worker] = []
        self.limit = min(SECTION_SECONDS, ask.timeout / 2)  # what follows a section that hangs still has time
        PATIENCE["program"] = min(PROGRAM_SECONDS, self.limit / 2)  # and so has the section whose program hangs

    def carried_out(self) -> dict[str, str]:
        """Wait for the workers until all sections are done or the time is over."""
        poller = select.poll()
        while self.left() and self.ask.left() > 0.05:
            self.begin()
            while self.workers:
                for worker in self.workers:
                    poller.register(worker.pipe, select.POLLIN | select.POLLHUP)
                ready = {pipe for pipe, _ in poller.poll(max(0, int((self.next() - time.monotonic()) * 1000) + 1))}
                for worker in self.workers:
                    poller.unregister(worker.pipe)
                self.judge([each for each in self.workers if each.pipe in ready and not each.hear(self.sections)])
        return self.sections

    def stall(self) -> float:
        """Seconds after which a section is not waited for: the time that is left is enough for all to wait so long."""
        begun = len(self.sections) + sum(bool(worker.name) for worker in self.workers)
        fair = max(0.0, self.ask.left()) / (2 * (len(self.ask.sections) - begun + 1))
        return min(STALL_SECONDS, self.ask.timeout / 40, fair)

    def waits(self, worker: Worker) -> float:
        """Until when a worker is left alone. One that has not come to a section yet waits for nobody but the host."""
        return worker.begun + (self.stall() if worker.name and not worker.relieved else self.limit)

    def next(self) -> float:
        """When something is to be done though nobody has said anything."""
        return min([self.ask.deadline, *map(self.waits, self.workers)])

    def judge(self, gone: list[Worker]) -> None:
        """Take leave of the workers that have gone and of those that say nothing for too long."""
        now = time.monotonic()
        late = [each for each in self.workers if each not in gone and now >= self.last(each)]
        self.workers = [each for each in self.workers if each not in gone and each not in late]
        for worker, how in zip(gone, ended(gone, gone=True)):
            if worker.name:
                self.sections[worker.name] = unlearnt("its process " + how)
        ended(late, gone=False)
        for worker in late:
            if worker.name:
                self.sections[worker.name] = unlearnt("no answer within %.1f seconds" % self.limit)
        for worker in self.workers:
            worker.relieved = worker.relieved or bool(worker.name and now >= self.waits(worker))
        # Somebody must be at work as long as something is left.
        if all(each.relieved for each in self.workers) and self.left() and self.ask.left() > 0.05:
            self.begin()

    def last(self, worker: Worker) -> float:
        """Until when a worker may say nothing at all."""
        return min(self.ask.deadline, worker.begun + self.limit)

    def left(self) -> bool:
        """Whether there are sections that nobody has begun."""
        poller = select.poll()
        poller.register(self.queue, select.POLLIN)
        return any(event & select.POLLIN for _, event in poller.poll(0))

    def begin(self) -> None:
        """Start a worker, or do here what is left when the system allows no process at all."""
        worker = Worker()
        try:
            worker.start(self.ask, self.queue, self.workers)
        except OSError:
            if not self.workers:
                for name in waiting(self.ask, self.queue):
                    self.sections[name] = examined(name, self.ask)
            return
        self.workers.append(worker)
