"""Names resolved to addresses."""

from __future__ import annotations

import socket
import time

from .files import unique
from .threads import start_thread

TYPE_CHECKING = False
if TYPE_CHECKING:
    pass

NAME_SECONDS = 4.0  # for all names together
PARALLEL_NAMES = 32


def resolve(names: list[str], seconds: float) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Addresses by name in the resolver's order, and why a name has none; names are asked side by side."""
    found: dict[str, list[str]] = {}
    errors: dict[str, str] = {}

    def ask(name: str) -> None:
        try:
            rows = socket.getaddrinfo(name, None, socket.AF_UNSPEC, socket.SOCK_STREAM)
            found[name] = unique(str(row[4][0]) for row in rows)
        except (OSError, UnicodeError) as failure:
            errors[name] = str(getattr(failure, "strerror", None) or failure)

    waiting = list(reversed(names))

    def work() -> None:
        while waiting:
            try:
                ask(waiting.pop())
            except IndexError:
                return  # another thread took the last one

    threads = [start_thread(work) for _ in names[:PARALLEL_NAMES]]
    deadline = time.monotonic() + seconds
    for thread in threads:
        if thread is not None:
            thread.join(max(0.0, deadline - time.monotonic()))
    known, failed = dict(found), dict(errors)  # a late answer changes nothing any more
    for name in names:
        if name not in known:
            failed.setdefault(name, "no answer within %.1f seconds" % seconds)
    return {name: known.get(name, []) for name in names}, failed
