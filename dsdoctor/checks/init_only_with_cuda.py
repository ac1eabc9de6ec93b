"""The process group is made only where torch sees a GPU."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.report.model import Evidence, Finding, Fix, Severity


@check(severity=Severity.INFO, since="0.1")
def init_only_with_cuda(context: JobContext) -> Iterator[Finding]:
    """The program makes the process group only if torch sees a GPU, and goes on without one.

    ## Why it matters
    On a host whose driver is down, or whose torch is a CPU build, it goes on to "Default process group has not been
    initialized", which names neither GPU nor driver; the other hosts wait for it until the timeout.

    ## How to fix it
    Stop there with a message of its own, or look at that host's driver when the message comes.

    ## Source
    The program's source, read and not run.
    """
    for program in context.job.programs.values():
        place = program.conditional_init
        if place is not None:
            yield init_only_with_cuda.finding(
                "the process group is made only where torch sees a GPU; a host that sees none fails later, with "
                '"Default process group has not been initialized"',
                evidence=[Evidence(text=place.text, source=program.path, line=place.line)],
                fix=[Fix('Add: else: raise SystemExit("torch sees no GPU on this host")')],
            )
