"""Carrying out the fixes that a check calls safe: the same commands that the report shows, one after the other."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dsdoctor.escape import escape
from dsdoctor.report.model import Finding, Fix
from dsdoctor.terminal import say


@dataclass(frozen=True)
class Mend:
    """A safe fix, and the finding that it is for."""

    finding: Finding
    fix: Fix


def safe_mends(findings: Iterable[Finding]) -> tuple[Mend, ...]:
    """The first safe fix of every finding that was not ignored; a fix without commands cannot be run."""
    mends = []
    for finding in findings:
        fix = next((fix for fix in finding.fix if fix.safe and fix.commands), None)
        if fix is not None and not finding.ignored:
            mends.append(Mend(finding, fix))
    return tuple(mends)


def carry_out(commands: Sequence[str]) -> tuple[str, int] | None:
    """Run shell lines as they would be pasted, on this machine (those for a host begin with ssh).

    What they print is said on standard error. Stops at the first line that fails; returns it with its exit code.
    """
    shell = shutil.which("bash") or "/bin/sh"
    for command in commands:
        with subprocess.Popen([shell, "-c", command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
            for line in process.stdout or ():
                say("  " + escape(line.decode("utf-8", "surrogateescape").rstrip("\r\n")))
        if process.returncode != 0:
            return command, process.returncode
    return None
