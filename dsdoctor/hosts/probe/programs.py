"""Running short programs, each with a time limit and nothing on its standard input."""

from __future__ import annotations

import os
import select
import time

from .files import ProbeError
from .stopping import RUNNING, STARTING, end_group, started

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

PROGRAM_SECONDS = 5.0  # for one program
OUTPUT_BYTES = 4 << 20  # of one program; more is not one of the answers read here
HANGING: set[str] = set()  # programs that had to be killed
PATIENCE = {"program": PROGRAM_SECONDS}


def run(argv: Sequence[str], seconds: float | None = None, text: str | None = None) -> tuple[int, str, str]:
    """Exit status, output and error output of a program in the C locale, with `text` or nothing as its input.

    Raises ProbeError when it cannot be started, takes longer than `seconds` or prints without end; its process group
    is killed then, and it is not asked again.
    """
    import subprocess

    if argv[0] in HANGING:
        raise ProbeError("%s did not end when it was asked before" % argv[0])
    environment = dict(os.environ, LC_ALL="C", LANGUAGE="C")
    problem: ProbeError | None = None
    STARTING.append(0)
    try:
        child = subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL if text is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )
    except (OSError, ValueError) as failure:
        problem = ProbeError("%s cannot be run: %s" % (argv[0], failure))
    else:
        RUNNING.append(child.pid)
    finally:
        started()
    if problem is not None:
        raise problem
    try:
        return converse(child, argv[0], time.monotonic() + (seconds or PATIENCE["program"]), text)
    finally:
        if child.returncode is None:  # not waited for yet, so the number is still its own
            HANGING.add(argv[0])
            end_group(child.pid)
            child.wait()
        for stream in (child.stdin, child.stdout, child.stderr):
            if stream:
                stream.close()
        RUNNING.remove(child.pid)


def converse(child: Any, name: str, deadline: float, text: str | None) -> tuple[int, str, str]:
    """Feed a child and drain both its outputs at once until it ends."""
    if text is not None:
        try:
            child.stdin.write(text.encode("utf-8", "surrogateescape"))  # shorter than a pipe's buffer
            child.stdin.close()
        except OSError:
            pass  # it ended without reading; what it printed says why
    outputs: dict[int, list[bytes]] = {child.stdout.fileno(): [], child.stderr.fileno(): []}
    streams = list(outputs)
    poller = select.poll()
    for stream in streams:
        poller.register(stream, select.POLLIN | select.POLLHUP)
    unfinished, size = set(streams), 0
    while unfinished:
        left = deadline - time.monotonic()
        if left <= 0:
            raise ProbeError("%s did not end within its time limit" % name)
        for stream, _ in poller.poll(max(1, int(left * 1000))):
            chunk = os.read(stream, 1 << 16)
            outputs[stream].append(chunk)
            size += len(chunk)
            if not chunk:
                poller.unregister(stream)
                unfinished.discard(stream)
        if size > OUTPUT_BYTES:
            raise ProbeError("%s printed more than %d MiB" % (name, OUTPUT_BYTES >> 20))
    while child.poll() is None:
        if time.monotonic() > deadline:
            raise ProbeError("%s closed its output but did not end within its time limit" % name)
        time.sleep(0.002)
    texts = [b"".join(outputs[stream]).decode("utf-8", "surrogateescape") for stream in streams]
    return child.returncode, texts[0], texts[1]


def answer_of(program: str | None, *question: str) -> str:
    """What a program prints; nothing where it is missing, fails or hangs."""
    if program is None:
        return ""
    try:
        code, output, _ = run([program] + list(question))
    except ProbeError:
        return ""
    return output.strip() if code == 0 else ""
