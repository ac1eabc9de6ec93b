"""The job may not read what it names."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.remedy import on_host
from dsdoctor.checks.sights import Sight, sights
from dsdoctor.cluster import Cluster, Member
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped

_SHOWN = 5


@check(severity=Severity.ERROR, since="0.1")
def unreadable_input(cluster: Cluster, context: JobContext) -> Iterator[Finding | Skipped]:
    """A model or data path is there, and the job's user may not read it, or a part of it.

    ## Why it matters
    "PermissionError: [Errno 13] Permission denied" on one host while the others wait. `chmod -R 766` is a common cause:
    a folder that lost its x bit can be listed, and nothing in it opened.

    ## How to fix it
    Give the right to read back; a capital X gives folders their x and leaves files alone.

    ## Source
    access(2) by the job's user; chmod(1). Links that lead nowhere count as unreadable.
    """
    seen, skipped = sights(unreadable_input, cluster, context, "model", "data")
    yield from skipped
    for sight in seen:
        for member, path in sight.found:
            if path.blocked is not None:
                yield _finding(
                    sight, member, f"the folder {path.blocked} on the way may not be entered", path.blocked, "a+x"
                )
            elif path.kind in ("file", "folder") and not path.readable:
                yield _finding(sight, member, "the job's user may not read it", path.at, "-R a+rX")
            elif path.unreadable_count:
                shown = ", ".join(path.unreadable[:_SHOWN])
                more = f" and {path.unreadable_count - _SHOWN} more" if path.unreadable_count > _SHOWN else ""
                what = f"{path.unreadable_count} of the names in it cannot be read: {shown}{more}"
                yield _finding(sight, member, what, path.at, "-R a+rX", Severity.WARNING)


def _finding(
    sight: Sight, member: Member, what: str, path: str, mode: str, severity: Severity | None = None
) -> Finding:
    command = on_host(member.entry, f"chmod {mode} -- {shlex.quote(path)}")
    return unreadable_input.finding(
        f"{sight.called()} is there, and {what}",
        hosts=[member.name],
        severity=severity,
        evidence=[Evidence(text=f"{path}: {what}", source=member.name)],
        fix=[Fix("As the owner of the files (or root) give the right back", (command,))],
    )
