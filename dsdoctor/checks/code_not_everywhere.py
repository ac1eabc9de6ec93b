"""What a script starts on other hosts is not there, or is another version there."""

from __future__ import annotations

import posixpath
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence

from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.remedy import on_host, ssh_words
from dsdoctor.cluster import Cluster, Member
from dsdoctor.facts import InputPath
from dsdoctor.jobs.paths import code_files
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped

_Found = list[tuple[Member, InputPath]]


@check(severity=Severity.WARNING, since="0.1")
def code_not_everywhere(cluster: Cluster, context: JobContext) -> Iterator[Finding | Skipped]:
    """A program or DeepSpeed config of the script is not at the same path on every host, or is another one there.

    ## Why it matters
    deepspeed and torchrun, started by hand, look for the program at this machine's path on every host: where it is not
    there those ranks fail, and the others wait for them ("cd: no such file or directory", "can't open file"). An older
    copy is worse, for it starts: its ranks train another program.

    ## How to fix it
    Copy the code, the same on every host; or let `dsdoctor launch SCRIPT --hostfile FILE` do that: it copies the code
    to a folder of its own on each host before the start, and nothing of this matters.

    ## Source
    stat(2) on each host; size and content of the files. Only scripts are judged: the code of a job file is copied by
    every launch.
    """
    if len(cluster) < 2 or context.planned:
        return
    for name in code_files(context.job):
        found: _Found = []
        for member in cluster.examined:
            path = member.facts.inputs.find(name) if member.facts is not None else None
            if path is None or path.kind == "unknown":
                reason = f"{name}: {path.error or 'not known'}" if path else f"the probe was not asked about {name}"
                yield code_not_everywhere.skipped([member.name], reason)
                continue
            found.append((member, path))
        yield from _missing(name, found, context)
        yield from _differing(name, found, context)


def _missing(name: str, found: _Found, context: JobContext) -> Iterator[Finding]:
    missing = [(member, path) for member, path in found if path.kind == "missing"]
    if missing:
        where = missing[0][1].at
        yield code_not_everywhere.finding(
            f"{name} is not at {where}, where deepspeed and torchrun look for it when they are started by hand",
            severity=Severity.INFO,
            hosts=[member.name for member, _ in missing],
            evidence=[*(_seen(member, path) for member, path in missing), context.cite(context.job.source)],
            fix=_fixes(missing, context),
        )


def _differing(name: str, found: _Found, context: JobContext) -> Iterator[Finding]:
    there = [(member, path) for member, path in found if path.kind == "file" and path.digest]
    if len(there) < 2:
        return
    local = [path.digest for member, path in there if member.entry.local]
    right = local[0] if local else Counter(path.digest for _, path in there).most_common(1)[0][0]
    others = [(member, path) for member, path in there if path.digest != right]
    if others:
        usual = "this machine" if local else next(member.name for member, path in there if path.digest == right)
        yield code_not_everywhere.finding(
            f"{name} is another one than on {usual}: these ranks would run other code",
            hosts=[member.name for member, _ in others],
            evidence=[_seen(member, path) for member, path in there if path.digest == right][:1]
            + [_seen(member, path) for member, path in others],
            fix=_fixes(others, context),
        )


def _seen(member: Member, path: InputPath) -> Evidence:
    if path.kind == "missing":
        return Evidence(text=f"{path.nearest or '/'} is there, {path.at} is not", source=member.name)
    return Evidence(text=f"{path.at}: {path.total_bytes} bytes, content {path.digest}", source=member.name)


def _fixes(those: Sequence[tuple[Member, InputPath]], context: JobContext) -> Iterator[Fix]:
    yield Fix(
        "Let launch copy the code to every host before the start",
        (f"dsdoctor launch {shlex.quote(context.job.source)} --hostfile HOSTFILE",),
    )
    copies = []
    for member, path in those:
        *options, destination = ssh_words(member.entry)
        port = f" -e 'ssh {' '.join(options)}'" if options else ""
        copies.append(on_host(member.entry, f"mkdir -p {shlex.quote(posixpath.dirname(path.at))}"))
        copies.append(f"rsync -a{port} {shlex.quote(path.at)} {destination}:{shlex.quote(path.at)}")
    yield Fix("Copy this machine's to where it is looked for", tuple(copies))
