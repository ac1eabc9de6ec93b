"""A login shell that prints."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.remedy import on_host
from dsdoctor.cluster import HostEntry
from dsdoctor.facts import HostFacts
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped

_SHOWN = 120  # characters of a line


@check(severity=Severity.WARNING, since="0.1")
def shell_noise(host: HostFacts, entry: HostEntry, context: JobContext | None) -> Iterator[Finding | Skipped]:
    """The login shell prints something before a command's own output.

    ## Why it matters
    rsync and scp talk over that same output: "protocol version mismatch -- is your shell clean?". dsdoctor reads its
    answers past such lines, but the copy of the code to the host fails.

    ## How to fix it
    In the shell's start files, let the lines that print run on terminals only, or write to standard error.

    ## Source
    rsync(1), "Diagnostics".
    """
    if not host.session.printed or entry.local:
        return
    lines = [line.strip() for line in host.session.printed.splitlines() if line.strip()] or ["blank lines"]
    more = f", and {len(lines) - 1} more" if len(lines) > 1 else ""
    yield shell_noise.finding(
        "the login shell prints to standard output before a command runs; rsync and scp want it silent",
        severity=Severity.ERROR if context else None,
        evidence=[Evidence(text=f"printed: {lines[0][:_SHOWN]}{more}", source=host.name)],
        fix=[
            Fix("See what is printed: this must print nothing", (on_host(entry, "true"),)),
            Fix("Put this at the top of ~/.bashrc there, above what prints: [[ $- == *i* ]] || return"),
        ],
    )
