"""What the ssh client says when it does not get through, as one of the problems of `ReachProblem`.

The sentences were collected by provoking each fault on OpenSSH 9.2; they are the same since 7.4 and are never
translated (ssh sets no LC_MESSAGES). They are searched line by line: through a jump host the first line is the cause.
"""

from __future__ import annotations

import re

from dsdoctor.cluster import ReachProblem
from dsdoctor.hosts.shown import shown

_PROBLEMS: tuple[tuple[ReachProblem, str], ...] = (
    ("unresolvable", r"Could not resolve hostname |no address associated with name"),
    ("refused", r"connect to .*: Connection refused|open failed: connect failed: Connection refused"),
    ("timeout", r"(Connection|Operation) timed out|port \d+ timed out|^Timeout, server \S+ not responding"),
    ("no-route", r"No route to host|Network is unreachable|Host is down|administratively prohibited"),
    (
        "changed-key",
        r"REMOTE HOST IDENTIFICATION HAS CHANGED|REVOKED HOST KEY|[Hh]ost key for .* (has changed|was revoked)",
    ),
    ("unknown-key", r"Host key verification failed|No \S+ host key is known for"),
    (
        "denied",
        r"Permission denied \(|Too many authentication failures|No supported authentication methods",
    ),
    (
        "unsupported",
        r"Bad configuration option|bad configuration options|Bad owner or permissions|Can't open user config file"
        r"|Unable to negotiate with|Cannot execute command-line and remote command|Unsupported option|Bad \S+ spec"
        r"|^\S+:? line \d+: |jumphost loop",
    ),
    (
        "closed",
        r"Connection (closed|reset) by|closed by remote host|Broken pipe|kex_exchange_identification|invalid format"
        r"|Protocol major versions differ|ssh_dispatch_run_fatal|padding error|Bad packet length|session open refused",
    ),
)
_PATTERNS = tuple((problem, re.compile(pattern)) for problem, pattern in _PROBLEMS)
_DECORATION = re.compile(
    r"^@+$|NASTY!$|^Someone could be eaves|^It is also possible|^This could mean|^impersonating this|^Please contact"
    r"|^Add correct host key|^The fingerprint for|^SHA256:"
)


def classify(text: str) -> ReachProblem:
    """The problem that ssh's standard error names; `other` for a sentence that is not known."""
    for line in text.splitlines():
        for problem, pattern in _PATTERNS:
            if pattern.search(line):
                return problem
    return "other"


def condense(text: str, limit: int = 600) -> str:
    """Ssh's words on one line, without its boxes and general warnings; empty when it said nothing."""
    lines = [line.strip() for line in text.splitlines()]
    kept = [line for line in lines if line and not _DECORATION.search(line)]
    return shown("; ".join(line.strip("@ ") for line in kept), limit)
