"""Git-LFS pointers in the place of files."""

from __future__ import annotations

import posixpath
import shlex
from collections.abc import Iterator

from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.remedy import on_host
from dsdoctor.checks.sights import Sight, names, sights
from dsdoctor.cluster import Cluster
from dsdoctor.facts import InputPath
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped

_SHOWN = 5


@check(severity=Severity.ERROR, since="0.1")
def git_lfs_pointer(cluster: Cluster, context: JobContext) -> Iterator[Finding | Skipped]:
    """Files of the job's model or data are Git-LFS pointers: some 130 bytes of text in the place of the content.

    ## Why it matters
    `git clone` without git-lfs leaves them. Loading them fails with "Error while deserializing header: HeaderTooLarge",
    "invalid load key, 'v'", or a JSON error, none of which says what is wrong.

    ## How to fix it
    Fetch the real files in that folder.

    ## Source
    The first line of every pointer, "version https://git-lfs.github.com/spec/v1" (git-lfs, docs/spec.md);
    huggingface/transformers#27923.
    """
    seen, skipped = sights(git_lfs_pointer, cluster, context, "model", "data")
    yield from skipped
    for sight in seen:
        having = [(member, path) for member, path in sight.found if path.pointers]
        if not having:
            continue
        pointers = list(dict.fromkeys(name for _, path in having for name in path.pointers))
        shown = ", ".join(pointers[:_SHOWN]) + (f" and {len(pointers) - _SHOWN} more" if len(pointers) > _SHOWN else "")
        fetch = [
            on_host(member.entry, f"git -C {shlex.quote(_folder(sight, path))} lfs pull") for member, path in having
        ]
        yield git_lfs_pointer.finding(
            f"in {sight.called()} there are Git-LFS pointers in the place of files: {shown}",
            hosts=names(having),
            evidence=[
                Evidence(text=f"{path.at}: {', '.join(path.pointers[:_SHOWN])}", source=member.name)
                for member, path in having
            ],
            fix=[
                Fix("Fetch the files themselves (git-lfs must be installed)", tuple(fetch)),
                Fix("Download them anew with `hf download`, which gives the files themselves"),
            ],
        )


def _folder(sight: Sight, path: InputPath) -> str:
    return path.at if path.kind == "folder" else posixpath.dirname(path.at)
