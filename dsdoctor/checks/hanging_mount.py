"""A mount that does not answer."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from dsdoctor.checks.engine import check
from dsdoctor.checks.remedy import as_root, on_host
from dsdoctor.checks.volumes import places
from dsdoctor.cluster import HostEntry
from dsdoctor.facts import DiskPath, FactUnavailable, HostFacts
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped

_HANGS = "hangs"  # the probe's word for a mount that gave no answer in time


@check(severity=Severity.ERROR, since="0.1")
def hanging_mount(host: HostFacts, entry: HostEntry) -> Iterator[Finding | Skipped]:
    """A mount that the job reads or writes gives no answer: a network file system whose server is gone.

    ## Why it matters
    Every process that touches it waits inside the kernel and cannot be killed, `ls` and `df` too. A rank that reads its
    data there hangs without a word, and all others wait for it.

    ## How to fix it
    Bring the server or the network back, or unmount it; a process that waits there ends only then.

    ## Source
    statvfs(3) and stat(2), given up after 2 s.
    """
    paths = [path for path in host.disk.paths if path.error and _HANGS in path.error]
    errors = {path.path: path.error or "" for path in paths}
    try:
        found = [path for path in host.inputs.paths if path.error and _HANGS in path.error and path.at not in errors]
    except FactUnavailable:
        found = []
    paths += [DiskPath(path=path.at, exists=False, total_bytes=0, free_bytes=0) for path in found]
    errors.update({path.at: path.error or "" for path in found})
    if not paths:
        return
    mounts = dict.fromkeys(path.mount for path in paths if path.mount not in ("", "/"))
    lazily = [f"umount -l -- {shlex.quote(mount)}" for mount in mounts]
    mounted = "grep -E ' (nfs4?|cifs|fuse[^ ]*|lustre|ceph|glusterfs|9p) ' /proc/mounts"
    yield hanging_mount.finding(
        f"no answer from the file system of {places(paths)}",
        evidence=[Evidence(text=f"{path}: {error}", source=host.name) for path, error in errors.items()],
        fix=[
            Fix("See which network mounts there are, without touching them", (on_host(entry, mounted),)),
            *(
                [
                    Fix(
                        "Where the server is gone for good, unmount it",
                        tuple(as_root(host, entry, line) for line in lazily),
                    )
                ]
                if lazily
                else []
            ),
        ],
    )
