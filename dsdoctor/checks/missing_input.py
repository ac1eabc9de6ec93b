"""A model or data that the job names is not there."""

from __future__ import annotations

import posixpath
import shlex
from collections.abc import Iterator, Sequence

from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.remedy import on_host
from dsdoctor.checks.sights import Sight, is_path, names, sights
from dsdoctor.cluster import Cluster, Member
from dsdoctor.facts import InputPath
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped


@check(severity=Severity.ERROR, since="0.1")
def missing_input(cluster: Cluster, context: JobContext) -> Iterator[Finding | Skipped]:
    """A model, tokenizer or data path that the job names is not on every host.

    ## Why it matters
    The ranks of that host stop with "FileNotFoundError" or "is not a local folder and is not a valid model identifier",
    and all others wait for them at the first collective. A local path that does not exist is never downloaded.

    ## How to fix it
    Copy it from a host that has it, or name where it is.

    ## Source
    stat(2) on each host. Relative paths begin at the code's folder, where launch starts the program; what lies in it
    here is copied to the hosts. `org/name` without such a folder is taken for a model of the hub.
    """
    seen, skipped = sights(missing_input, cluster, context, "model", "data")
    yield from skipped
    for sight in seen:
        missing = [(member, path) for member, path in sight.found if path.kind == "missing"]
        if not missing or not is_path(sight):
            continue
        having = [(member, path) for member, path in sight.found if path.kind in ("file", "folder")]
        yield missing_input.finding(
            f"{sight.called()} is not there",
            hosts=names(missing),
            evidence=[
                *(Evidence(text=_seen(path), source=member.name) for member, path in missing),
                context.cite(sight.cited()),
            ],
            fix=_fixes(sight, missing, having, context),
        )


def _seen(path: InputPath) -> str:
    if path.at.startswith(path.nearest.rstrip("/") + "/") and path.nearest:
        return f"{path.nearest} is there, {path.at[len(path.nearest.rstrip('/')) + 1 :]} in it is not"
    return f"{path.at} does not exist"


def _fixes(
    sight: Sight,
    missing: Sequence[tuple[Member, InputPath]],
    having: Sequence[tuple[Member, InputPath]],
    context: JobContext,
) -> Iterator[Fix]:
    if having and not having[0][0].entry.local:
        commands = [_copy(having[0], target) for target in missing]
        yield Fix(f"Copy it from {having[0][0].name}, through this machine", tuple(commands))
    elif having:
        commands = [_copy(having[0], target) for target in missing]
        yield Fix("Copy it from this machine", tuple(commands))
    elif sight.named.relative:
        yield Fix(
            f"Put it into the code's folder ({context.job.job.sync.code}), or name its absolute path in the job file"
        )
    else:
        yield Fix(f"Put it there, or name where it is: {sight.named.argument} in the job file")


def _copy(source: tuple[Member, InputPath], target: tuple[Member, InputPath]) -> str:
    """A shell line that packs a path on one host and unpacks it on another; both are reached from here."""
    (giver, given), (taker, wanted) = source, target
    folder, name = posixpath.split(given.at.rstrip("/"))
    pack = f"tar -C {shlex.quote(folder or '/')} -cf - {shlex.quote('./' + name)}"
    into, renamed = posixpath.split(wanted.at.rstrip("/"))
    unpack = f"mkdir -p {shlex.quote(into or '/')} && tar -C {shlex.quote(into or '/')} -xf -"
    if renamed != name:
        unpack += f" && mv {shlex.quote(posixpath.join(into, name))} {shlex.quote(wanted.at)}"
    unpacked = f"({unpack})" if taker.entry.local else on_host(taker.entry, unpack)
    return f"{on_host(giver.entry, pack)} | {unpacked}"
