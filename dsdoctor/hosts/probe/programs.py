"""Running short programs, each with a time limit and nothing on its standard input.

They are started by posix_spawn(3), which copies no memory of this process; `subprocess` would fork, and importing it
costs as much as several programs.
"""

from __future__ import annotations

import os
import select
import time

from .files import ProbeError
from .plain import signal
from .stopping import RUNNING, STARTING, end_group, started

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

PROGRAM_SECONDS = 5.0  # for one program
OUTPUT_BYTES = 4 << 20  # of one program; more is not one of the answers read here
HANGING: set[str] = set()  # programs that had to be killed
PATIENCE = {"program": PROGRAM_SECONDS}


def run(argv: Sequence[str], seconds: float | None = None, text: str | None = None) -> tuple[int, str, str]:
    """Exit status, output and error output of a program in the C locale, with `text` or nothing as its input.

    Raises ProbeError when it cannot be started, takes longer than `seconds` or prints without end; its process group
    is killed then, and it is not asked again.
    """
    return Program(argv, seconds, text).answer()


class Program:
    """A program that was started; several may run at the same time, and each is ended when its answer is taken."""

    def __init__(self, argv: Sequence[str], seconds: float | None = None, text: str | None = None) -> None:
        self.name = argv[0]
        if self.name in HANGING:
            raise ProbeError("%s did not end when it was asked before" % self.name)
        self.deadline = time.monotonic() + (seconds or PATIENCE["program"])
        self.text = text
        self.streams: list[int] = []  # what it reads, then what it prints: this process's ends
        theirs: list[int] = []
        problem: ProbeError | None = None
        STARTING.append(0)
        try:
            self.pid = self.start(argv, theirs)
        except (OSError, ValueError) as failure:
            problem = ProbeError("%s cannot be run: %s" % (self.name, failure))
            self.close()
        else:
            RUNNING.append(self.pid)
        finally:
            for stream in theirs:
                os.close(stream)
            started()
        if problem is not None:
            raise problem

    def start(self, argv: Sequence[str], theirs: list[int]) -> int:
        """Start it in a session of its own, or a process group where the C library is older than glibc 2.26."""
        actions: list[tuple[int, ...] | tuple[int, int, str, int, int]] = []
        for number, reads in ((0, True), (1, False), (2, False)):
            if reads and self.text is None:
                actions.append((os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDONLY, 0))
                continue
            inward, outward = os.pipe()
            theirs.append(inward if reads else outward)
            self.streams.append(outward if reads else inward)
            actions.append((os.POSIX_SPAWN_DUP2, theirs[-1], number))
        environment = dict(os.environ, LC_ALL="C", LANGUAGE="C")
        usual = (signal.SIGPIPE, signal.SIGXFSZ)  # Python ignores them, and what it starts would
        try:
            return os.posix_spawnp(
                self.name, list(argv), environment, file_actions=actions, setsid=True, setsigdef=usual
            )
        except NotImplementedError:
            return os.posix_spawnp(
                self.name, list(argv), environment, file_actions=actions, setpgroup=0, setsigdef=usual
            )

    def answer(self) -> tuple[int, str, str]:
        """Wait for its end; see :func:`run`."""
        status = None
        try:
            self.feed()
            texts = self.drain()
            status = self.wait()
            return os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status), texts[0], texts[1]
        finally:
            if status is None:  # not waited for yet, so the number is still its own
                HANGING.add(self.name)
                end_group(self.pid)
                os.waitpid(self.pid, 0)
            self.close()
            RUNNING.remove(self.pid)

    def feed(self) -> None:
        """Give it its input, which is shorter than a pipe's buffer."""
        if self.text is None:
            return
        stream = self.streams.pop(0)
        try:
            os.write(stream, self.text.encode("utf-8", "surrogateescape"))
        except OSError:
            pass  # it ended without reading; what it printed says why
        finally:
            os.close(stream)

    def drain(self) -> list[str]:
        """All that it prints, on both streams at once."""
        outputs: dict[int, list[bytes]] = {stream: [] for stream in self.streams}
        poller = select.poll()
        for stream in self.streams:
            poller.register(stream, select.POLLIN | select.POLLHUP)
        unfinished, size = len(outputs), 0
        while unfinished:
            left = self.deadline - time.monotonic()
            if left <= 0:
                raise ProbeError("%s did not end within its time limit" % self.name)
            for stream, _ in poller.poll(max(1, int(left * 1000))):
                chunk = os.read(stream, 1 << 16)
                outputs[stream].append(chunk)
                size += len(chunk)
                if not chunk:
                    poller.unregister(stream)
                    unfinished -= 1
            if size > OUTPUT_BYTES:
                raise ProbeError("%s printed more than %d MiB" % (self.name, OUTPUT_BYTES >> 20))
        return [b"".join(chunks).decode("utf-8", "surrogateescape") for chunks in outputs.values()]

    def wait(self) -> int:
        """Its status, once it has closed its outputs."""
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return status
            if time.monotonic() > self.deadline:
                raise ProbeError("%s closed its output but did not end within its time limit" % self.name)
            time.sleep(0.0005)

    def close(self) -> None:
        """Close this process's ends of its streams."""
        while self.streams:
            os.close(self.streams.pop())


def answer_of(program: str | None, *question: str) -> str:
    """What a program prints; nothing where it is missing, fails or hangs."""
    if program is None:
        return ""
    try:
        code, output, _ = run([program, *question])
    except ProbeError:
        return ""
    return output.strip() if code == 0 else ""
