"""An op of DeepSpeed is compiled when the job starts."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.ops import built_before, installed_with_deepspeed, needed
from dsdoctor.checks.remedy import install, on_host
from dsdoctor.cluster import HostEntry
from dsdoctor.facts import HostFacts
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped


@check(severity=Severity.INFO, since="0.1")
def op_built_at_start(host: HostFacts, entry: HostEntry, context: JobContext) -> Iterator[Finding | Skipped]:
    """A compiled op that this job needs is not built yet: the first start compiles it on that host.

    ## Why it matters
    It takes from 20 seconds to some minutes, in which the other hosts wait; nothing is wrong then. Killed in the
    middle, it leaves a lock behind that makes the next start wait for ever (stale-extension-lock).

    ## How to fix it
    Nothing needs to be done. To have it once and for all, build it when DeepSpeed is installed.

    ## Source
    DeepSpeed's git_version_info_installed.py (ops built at installation) and torch's cache of extensions.
    """
    if host.deepspeed.version is None:
        return
    waiting = [op for op in needed(context) if not installed_with_deepspeed(host, op)]
    if not waiting:
        return
    cache = host.extensions
    waiting = [op for op in waiting if not built_before(host, op)]
    if not waiting:
        return
    names = ", ".join(op.name for op in waiting)
    variables = " ".join(f"DS_BUILD_{_BUILD.get(op.name, op.name.upper())}=1" for op in waiting)
    options = ("--no-build-isolation", "--no-cache-dir")
    again = install(host, *options, f"deepspeed=={host.deepspeed.version}", force=True)
    yield op_built_at_start.finding(
        f"{names} is compiled at the first start: it is not built yet",
        evidence=[
            *(op.because for op in waiting),
            Evidence(text=f"not among DeepSpeed's installed ops, nor in {cache.folder}", source=host.name),
        ],
        fix=[
            Fix(
                "To build it beforehand",
                (on_host(entry, f"{variables} {again}"),),
            )
        ],
    )


# Where the variable that builds an op is not called as the op is (BUILD_VAR in op_builder/*.py).
_BUILD = {"async_io": "AIO"}
