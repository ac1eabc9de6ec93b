"""Names resolved to addresses."""

from __future__ import annotations

import time

from .files import unique
from .plain import socket
from .threads import start_thread

NAME_SECONDS = 4.0  # for all names together
PARALLEL_NAMES = 32
QUICK_SECONDS = 0.02  # what one thread gets for all names: /etc/hosts and a cache near by need no more


def resolve(names: list[str], seconds: float) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Addresses by name in the resolver's order, and why a name has none; slow ones are asked side by side."""
    found: dict[str, list[str]] = {}
    errors: dict[str, str] = {}
    waiting = list(reversed(names))

    def work() -> None:
        while waiting:
            try:
                name = waiting.pop()
            except IndexError:
                return  # another thread took the last one
            try:
                found[name] = addresses_of(name)
            except (OSError, UnicodeError) as failure:
                errors[name] = str(getattr(failure, "strerror", None) or failure)

    deadline = time.monotonic() + seconds
    threads = [start_thread(work)]
    if threads[0] is not None:
        threads[0].join(min(QUICK_SECONDS, seconds))
    threads += [start_thread(work) for _ in waiting[: PARALLEL_NAMES - 1]]
    for thread in threads:
        if thread is not None:
            thread.join(deadline - time.monotonic())
    known, failed = dict(found), dict(errors)  # a late answer changes nothing any more
    for name in names:
        if name not in known:
            failed.setdefault(name, "no answer within %.1f seconds" % seconds)
    return {name: known.get(name, []) for name in names}, failed


def addresses_of(name: str) -> list[str]:
    """A name's addresses. Raises OSError or UnicodeError for one that has none."""
    try:
        return [socket.inet_ntoa(socket.inet_pton(socket.AF_INET, name))]
    except (OSError, ValueError):
        pass  # no IPv4 address
    # As bytes where that is possible: Python would load its tables of letters only to find that there are none.
    host = name.encode("ascii") if name.isascii() else name
    rows = socket.getaddrinfo(host, None, socket.AF_UNSPEC, socket.SOCK_STREAM)
    return unique(str(row[4][0]) for row in rows)
