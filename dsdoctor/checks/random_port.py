"""A master port that is drawn at random and not tried."""

from __future__ import annotations

import re
from collections.abc import Iterator

from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.script_lines import calls, cited
from dsdoctor.jobs.script.model import Call, Word
from dsdoctor.jobs.unknown import Unknown
from dsdoctor.report.model import Finding, Fix, Severity

_OPTIONS = ("--master_port", "--master-port", "--main_process_port", "--main-process-port", "--rdzv_endpoint")
_DRAWN = re.compile(r"\bshuf\b|\bRANDOM\b|\brandint\b|\brandom\b")
_TRIED = re.compile(r"\b(?:ss|lsof|netstat|nc|ncat|fuser)\s+-|\bsocket\b|/dev/tcp/")
_SHUF = re.compile(r"-i\s*(\d+)-(\d+)")
_MODULO = re.compile(r"RANDOM\s*%\s*(\d+)\s*\)?\s*\+\s*(\d+)|(\d+)\s*\+\s*\(?\s*RANDOM\s*%\s*(\d+)")

_EPHEMERAL = (32768, 60999)  # what Linux gives to outgoing connections: net.ipv4.ip_local_port_range

_FREE = "port=$(python3 -c 'import socket; s = socket.socket(); s.bind((\"\", 0)); print(s.getsockname()[1])')"


@check(severity=Severity.WARNING, since="0.1")
def random_port(context: JobContext) -> Iterator[Finding]:
    """The master port is drawn at random, and nobody looks whether it is free.

    ## Why it matters
    "EADDRINUSE" or "the server socket has failed to listen" once in many runs, after minutes of loading. Among 32768
    to 60999 any program's outgoing connection may hold the port at that moment. Drawn on each of several hosts, it is
    another port on each, and they wait for each other until the timeout.

    ## How to fix it
    Let dsdoctor choose the port (it tries it on the master), ask the system for a free one, or write a fixed one
    below 32768.

    ## Source
    ip(7), ip_local_port_range; torch's TCPStore.
    """
    for call in calls(context):
        word = _port(call)
        if word is None or not _DRAWN.search(word.text) or _TRIED.search(word.text):
            continue
        if context.job.script is not None and _TRIED.search(context.job.script.text):
            continue
        span = _span(word.text)
        in_use = span is None or (span[0] <= _EPHEMERAL[1] and span[1] >= _EPHEMERAL[0])
        among = f"among {span[0]} to {span[1]} " if span else ""
        yield random_port.finding(
            f"the master port is drawn at random {among}({word.text}), and not tried; "
            "a port that is known to be free is wanted",
            severity=Severity.WARNING if in_use else Severity.INFO,
            evidence=[cited(context, word.line)],
            fix=[
                Fix("Take one that is free at that moment", (_FREE,)),
            ],
        )
        return


def _port(call: Call) -> Word | None:
    """The word that says the port, as an option or a variable, where it is not known."""
    word = call.option(*_OPTIONS)
    if word is None and "MASTER_PORT" in call.command.variables:
        held = call.command.variables["MASTER_PORT"]
        word = Word(held.value, held.line)
    return word if word is not None and isinstance(word.text, Unknown) else None


def _span(text: str) -> tuple[int, int] | None:
    found = _SHUF.search(text)
    if found:
        return int(found[1]), int(found[2])
    found = _MODULO.search(text)
    if not found:
        return None
    many, first = (int(found[1]), int(found[2])) if found[1] else (int(found[4]), int(found[3]))
    return first, first + many - 1
