"""Whether this host can reach the place where the ranks meet, asked while the job starts.

A rank that cannot reach it waits without a word: torch's stores try for 5 to 30 minutes. So the host of rank 0 says
when somebody listens at the port, and every other host tries to connect until it once succeeds. The connection is
closed at once; torch's stores take no notice of one that says nothing.
"""

import socket
import time
from typing import Any, Callable, Dict, Optional

LISTEN = "0A"  # include/net/tcp_states.h
EVERY_SECONDS = 1.0
CONNECT_SECONDS = 5.0

Send = Callable[[Dict[str, Any]], None]


def watch(meet: Dict[str, Any], send: Send) -> None:
    """Say once that the place is there (on its own host) or reached (elsewhere); until then, why it is not."""
    said = None
    while True:
        if meet["here"]:
            if is_listened_on(meet["port"]):
                return send({"e": "meet", "listening": True})
        else:
            problem = try_to_reach(meet["addr"], meet["port"])
            if problem is None:
                return send({"e": "meet", "reached": True})
            if problem != said:
                said = problem
                send({"e": "meet", "problem": problem})
        time.sleep(EVERY_SECONDS)


def is_listened_on(port: int) -> bool:
    """Whether a process in this network namespace listens on a port, IPv4 or IPv6."""
    for path in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(path, "r") as file:
                lines = file.read().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            words = line.split()
            if words[3] == LISTEN and int(words[1].rpartition(":")[2], 16) == port:
                return True
    return False


def try_to_reach(address: str, port: int) -> Optional[str]:
    """Connect and close again; what kept it from it, None when it went well."""
    try:
        socket.create_connection((address, port), timeout=CONNECT_SECONDS).close()
    except socket.timeout:
        return "no answer within %.0f s" % CONNECT_SECONDS
    except OSError as error:
        return error.strerror or str(error)
    return None
