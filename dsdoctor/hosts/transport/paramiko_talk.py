"""A command on a paramiko channel from its first byte of input to its end, read where paramiko puts what comes.

`collect` over pipes would need three threads a command; with many hosts that costs more than the answers themselves.
"""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dsdoctor.hosts.transport.child import LINGER_SECONDS, TICK_SECONDS, Capture, captures

if TYPE_CHECKING:
    import paramiko

CHUNK = 1 << 16
PACKET = 1 << 15


def talk(channel: paramiko.Channel, argv: Sequence[str], stdin: bytes, timeout: float) -> tuple[bytes, bytes, bool]:
    """Feed the command and take what it says until it ends: standard output, standard error, whether they were cut.

    Raises:
        subprocess.TimeoutExpired: it runs longer than `timeout` seconds; it still runs, what it said is in the error.
    """
    deadline = time.monotonic() + timeout
    output, error = captures()
    news = threading.Event()
    for buffer in (channel.in_buffer, channel.in_stderr_buffer):
        buffer.set_event(news)
    threading.Thread(target=_feed, args=(channel, stdin), daemon=True).start()
    quiet_since: float | None = None  # the end of the command, or what came last after it
    while True:
        over = channel.eof_received or channel.closed  # asked before the last is taken
        ended = channel.status_event.is_set() or channel.closed
        came = _take(channel, output, error)
        now = time.monotonic()
        if ended and (quiet_since is None or came):
            quiet_since = now
        # Something that it left behind may hold the streams open.
        lingers = quiet_since is not None and now - quiet_since > LINGER_SECONDS
        if ended and not came and (over or lingers):
            return bytes(output.data), bytes(error.data), output.truncated or error.truncated
        if now > deadline:
            raise subprocess.TimeoutExpired(list(argv), timeout, bytes(output.data), bytes(error.data))
        if not came:
            (channel.status_event if over else news).wait(min(TICK_SECONDS, deadline - now))
            news.clear()


def _take(channel: paramiko.Channel, output: Capture, error: Capture) -> bool:
    """Take what has come, if anything. Reading one stream clears the other's event: only after nothing is waited."""
    streams = (channel.recv_ready, channel.recv, output), (channel.recv_stderr_ready, channel.recv_stderr, error)
    came = False
    for ready, receive, capture in streams:
        if ready():
            capture.add(receive(CHUNK))
            came = True
    return came


def _feed(channel: paramiko.Channel, stdin: bytes) -> None:
    """Send the input and its end, in a thread of its own: a host that is frozen takes nothing and says nothing."""
    try:
        for start in range(0, len(stdin), PACKET):
            channel.sendall(stdin[start : start + PACKET])
        channel.shutdown_write()
    except (OSError, EOFError):
        pass  # nobody reads any more
