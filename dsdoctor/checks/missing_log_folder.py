"""A file that the job writes lies in a folder that does not exist."""

from __future__ import annotations

import posixpath
import shlex
from collections.abc import Iterator

from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.remedy import on_host
from dsdoctor.checks.sights import names, sights
from dsdoctor.cluster import Cluster, Member
from dsdoctor.facts import InputPath
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped


@check(severity=Severity.WARNING, since="0.1")
def missing_log_folder(cluster: Cluster, context: JobContext) -> Iterator[Finding | Skipped]:
    """The job names a log or result file in a folder that does not exist.

    ## Why it matters
    Most programs do not make the folder: "No such file or directory: logs_and_outputs/order_1/logs/train.log", at the
    start, or when the results of a whole run are to be written.

    ## How to fix it
    Make the folder on every host.

    ## Source
    open(2): it makes a file, not the folders above it.
    """
    seen, skipped = sights(missing_log_folder, cluster, context, "log")
    yield from skipped
    for sight in seen:
        lacking = [pair for pair in sight.found if _lacks_folder(*pair, relative=sight.named.relative)]
        if not lacking:
            continue
        folder = posixpath.dirname(sight.named.path)
        made = [
            on_host(member.entry, f"mkdir -p -- {shlex.quote(posixpath.dirname(path.at))}") for member, path in lacking
        ]
        yield missing_log_folder.finding(
            f"{sight.named.argument} names a file in {folder}, and there is no such folder",
            hosts=names(lacking),
            evidence=[
                *(Evidence(text=f"only {path.nearest} is there", source=member.name) for member, path in lacking),
                context.cite(sight.cited()),
            ],
            fix=[Fix("Make it", tuple(made), safe=True)],
        )


def _lacks_folder(member: Member, path: InputPath, *, relative: bool) -> bool:
    """Whether the folder is missing. A relative one on another host may come with the code."""
    if path.kind != "missing" or (relative and not member.entry.local):
        return False
    return posixpath.dirname(path.at) != path.nearest.rstrip("/") and posixpath.dirname(path.at) != path.nearest
