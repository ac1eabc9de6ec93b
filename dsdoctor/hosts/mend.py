"""Carrying out the fixes that a check calls safe: the same commands that the report shows, one after the other."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dsdoctor.report.model import Finding, Fix


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

    Their output goes to standard error. Stops at the first line that fails and returns it with its exit code.
    """
    shell = shutil.which("bash") or "/bin/sh"
    for command in commands:
        code = subprocess.run([shell, "-c", command], stdout=sys.stderr, check=False).returncode
        if code != 0:
            return command, code
    return None
