"""What every command reports: findings, what was skipped and why, and (for a log) the verdict.

One :class:`Finding` type serves `check` and `diagnose`, so that one fault has one name in all three commands.
All values are frozen; renderers (one a file beside this one) only read them.
"""

from __future__ import annotations

from enum import Enum
from typing import Literal

import msgspec

from dsdoctor import __version__

SCHEMA = "dsdoctor.report/1"


class Severity(str, Enum):
    """How bad a finding is: an `error` makes the job fail or compute something wrong, and stops `launch`."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"

    @property
    def rank(self) -> int:
        """0 for info, 1 for warning, 2 for error."""
        return ("info", "warning", "error").index(self.value)


class Evidence(msgspec.Struct, frozen=True):
    """A piece of what was seen: a line of a log, a value on a host, a line of a file."""

    text: str
    source: str | None = None  # a host, a file name, "stdin"
    line: int | None = None  # 1-based


class Fix(msgspec.Struct, frozen=True):
    """One way out. `commands` are shell lines to paste; `env` is set for the job; `safe` ones `--fix` may run."""

    title: str
    commands: tuple[str, ...] = ()
    env: dict[str, str] = {}
    safe: bool = False


class Finding(msgspec.Struct, frozen=True):
    """Something that is wrong: what, where, the evidence for it, and how to mend it."""

    name: str  # kebab-case, the check's or the rule's name
    severity: Severity
    message: str  # one sentence: what is, where, value seen, value wanted
    hosts: tuple[str, ...] = ()
    ranks: tuple[int, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    fix: tuple[Fix, ...] = ()
    ignored: bool = False


class Skipped(msgspec.Struct, frozen=True):
    """A check that could not judge, on these hosts, because a fact was not to be had."""

    name: str
    hosts: tuple[str, ...]
    reason: str


class Crashed(msgspec.Struct, frozen=True):
    """A check with a bug: its traceback is kept, the other checks went on."""

    name: str
    hosts: tuple[str, ...]
    traceback: str


class HostState(msgspec.Struct, frozen=True):
    """Whether a host could be examined, and if not, why."""

    name: str
    reachable: bool
    error: str | None = None


Confidence = Literal["certain", "likely", "possible"]


class Verdict(msgspec.Struct, frozen=True):
    """The answer of `diagnose`: a slug of the taxonomy, `none` (nothing is wrong) or `unknown`."""

    cause: str
    confidence: Confidence
    host: str | None = None
    rank: int | None = None
    line: int | None = None
    text: str | None = None
    symptoms: tuple[str, ...] = ()
    source: str | None = None


class Report(msgspec.Struct, frozen=True):
    """All that one command found out; what every renderer takes."""

    command: str
    seconds: float
    hosts: tuple[HostState, ...] = ()
    findings: tuple[Finding, ...] = ()
    passed: tuple[str, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    crashed: tuple[Crashed, ...] = ()
    verdict: Verdict | None = None
    notes: tuple[str, ...] = ()  # things worth saying that are not findings

    def counts(self) -> dict[str, int]:
        """The numbers of the last line: findings by severity (ignored ones apart), passed, skipped, crashed."""
        alive = [finding for finding in self.findings if not finding.ignored]
        return {
            "error": sum(finding.severity is Severity.ERROR for finding in alive),
            "warning": sum(finding.severity is Severity.WARNING for finding in alive),
            "info": sum(finding.severity is Severity.INFO for finding in alive),
            "passed": len(self.passed),
            "skipped": len(self.skipped),
            "crashed": len(self.crashed),
            "ignored": sum(finding.ignored for finding in self.findings),
        }

    def exit_code(self, fail_on: Severity = Severity.ERROR) -> int:
        """0 well, 1 findings at or above `fail_on`, 3 a host or all checks could not be judged, 4 a crash.

        A finding outranks "not examined" only when it says more than that the host is out of reach: an unreachable
        host answers 3, so that "ill" and "not examined" never look alike to a script.
        """
        alive = [finding for finding in self.findings if not finding.ignored and finding.severity.rank >= fail_on.rank]
        if any(finding.name != "unreachable-host" for finding in alive):
            return 1
        if any(not host.reachable for host in self.hosts):
            return 3
        if self.crashed:
            return 4
        if alive:
            return 1
        return 3 if self.nothing_judged else 0

    @property
    def nothing_judged(self) -> bool:
        """Whether checks were asked for, and each of them was skipped."""
        return bool(self.verdict is None and self.skipped and not (self.passed or self.findings or self.crashed))

    def to_dict(self) -> dict[str, object]:
        """The report as the JSON contract has it (`--format json`)."""
        body = msgspec.to_builtins(self)
        head: dict[str, object] = {"schema": SCHEMA, "version": __version__, "command": self.command}
        head["seconds"] = round(self.seconds, 3)
        for key in ("hosts", "findings", "passed", "skipped", "crashed"):
            head[key] = body[key]
        head["counts"] = self.counts()
        head["verdict"] = body["verdict"]
        head["notes"] = body["notes"]
        return head
