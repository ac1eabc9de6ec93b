"""Small programs sent to a host's own Python: look at outputs.

Each is a function of one JSON argument that prints one JSON line after a marker; its source travels as text, nothing is
installed. They must run on Python 3.8 with the standard library alone.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Sequence
from typing import Any

from dsdoctor.hosts.gather import with_setup
from dsdoctor.hosts.transport import Transport

MARK = "<<<dsdoctor-answer "


class HostAnswerError(Exception):
    """A host answered something that is no answer; `detail` is what it said."""


def ask(
    transport: Transport,
    python: str,
    program: Callable[[Any], Any],
    argument: Any,
    setup: Sequence[str] = (),
    timeout: float = 30,
) -> Any:
    """Run one of the functions below on a host, behind the job's setup lines, and return its answer.

    Raises:
        TransportError: the host was not reached.
        HostAnswerError: it said something else (no Python, a full disk, a traceback).
    """
    head = "from __future__ import annotations\nimport sys\nsys.path[:] = filter(None, sys.path)\nimport json\n"
    tail = f"print('\\n' + {MARK!r} + json.dumps({program.__name__}(json.loads(sys.argv[1]))))\n"
    source = head + inspect.getsource(program) + tail
    argv = with_setup([python, "-", json.dumps(argument)], setup)
    done = transport.run(argv, stdin=source.encode(), timeout=timeout)
    text = done.stdout.decode("utf-8", "replace")
    for line in text.splitlines():
        if line.startswith(MARK):
            return json.loads(line[len(MARK) :])
    said = (done.stderr.decode("utf-8", "replace").strip() or text.strip()).splitlines()
    raise HostAnswerError(said[-1] if said else f"{python} ended with exit code {done.returncode}")


def missing_outputs(order: dict[str, Any]) -> list[str]:
    """The files of a stage that are not on the host, or empty."""
    import os

    def size(path: str) -> int:
        try:
            return os.stat(path).st_size
        except OSError:  # a dangling link
            return 0

    missing = []
    for name in order["outputs"]:
        path = os.path.join(order["folder"], name)
        if os.path.isdir(path):
            if not any(size(os.path.join(at, each)) for at, _, files in os.walk(path) for each in files):
                missing.append("%s is empty" % name)
        elif not os.path.exists(path):
            missing.append("%s is not there" % name)
        elif size(path) == 0:
            missing.append("%s is empty" % name)
    return missing
