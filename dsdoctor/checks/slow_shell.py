"""A login shell that makes every command wait."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.engine import check
from dsdoctor.checks.remedy import on_host
from dsdoctor.cluster import HostEntry
from dsdoctor.facts import HostFacts
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped

# Seconds. A shell with nothing in its start files takes 0.01; on a loaded machine 0.2 were measured, of which it
# computed no more than before. `conda init` in ~/.bashrc computes 0.2 to 0.3.
_SLOW, _VERY_SLOW = 0.5, 3.0
_COMPUTES = 0.2


@check(severity=Severity.INFO, since="0.1")
def slow_shell(host: HostFacts, entry: HostEntry) -> Iterator[Finding | Skipped]:
    """The login shell takes long to come to a command, and every command over ssh begins with it.

    ## Why it matters
    A launch takes some twenty commands a host, and DeepSpeed, pdsh and rsync go through the same shell. The usual
    causes are `conda init`, `module load` or nvm in ~/.bashrc, and a home on a slow network mount.

    ## How to fix it
    Let the start files end early for shells without a terminal.

    ## Source
    The start of the process below sshd, the moment at which it had come to the command, and what it computed
    (/proc/PID/stat): from 0.5 s on, and from 0.2 s on where the shell computed for as long, so that it is not the
    machine that was busy.
    """
    seconds, computed = host.session.shell_seconds, host.session.shell_cpu_seconds or 0.0
    if seconds is None or entry.local or (seconds < _SLOW and (computed < _COMPUTES or seconds < _COMPUTES)):
        return
    shell = host.session.shell.rpartition("/")[2] or "the login shell"
    yield slow_shell.finding(
        f"the login shell takes {seconds:.2g} s to come to a command; 0.1 or less is usual",
        severity=Severity.WARNING if seconds >= _VERY_SLOW else None,
        evidence=[
            Evidence(
                text=f"{shell}: {seconds:.2f} s from its start to the command"
                + (f", of which it computed for {computed:.2f} s" if computed else ""),
                source=host.name,
            )
        ],
        fix=[
            Fix("See it", (f"time {on_host(entry, 'true')}",)),
            Fix("Put this at the top of ~/.bashrc there, above what takes long: [[ $- == *i* ]] || return"),
        ],
    )
