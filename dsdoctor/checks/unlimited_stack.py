"""An unlimited stack, which makes NCCL's threads small ones."""

from __future__ import annotations

import re
from collections.abc import Iterator

from dsdoctor.checks.engine import check
from dsdoctor.facts import HostFacts
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped

_SETS_ITS_OWN = (2, 28)  # from here on NCCL asks for a stack of its own


@check(severity=Severity.WARNING, since="0.1")
def unlimited_stack(host: HostFacts) -> Iterator[Finding | Skipped]:
    """The stack is unlimited, which gives the threads of an NCCL before 2.28 only 2 MB each.

    ## Why it matters
    For `ulimit -s unlimited` the C library takes 2 MB as the size of a new thread's stack, which is less than the usual
    8 MB. NCCL's helper threads then crash with a segmentation fault, at the start or in the middle of a run.

    ## How to fix it
    Set the usual limit before the job starts.

    ## Source
    NVIDIA's NCCL guide, "Troubleshooting"; ARCH_STACK_DEFAULT_SIZE in glibc, pthread_create(3).
    """
    stack = host.limits.stack
    if stack is None or stack.soft is not None or not host.gpu.gpus:
        return
    nccl = host.nccl
    version = next((copy.version for copy in nccl.copies if copy.path == nccl.loaded), None)
    digits = re.match(r"(\d{1,6})\.(\d{1,6})", version or "")
    if digits is None or (int(digits[1]), int(digits[2])) >= _SETS_ITS_OWN:
        return
    yield unlimited_stack.finding(
        f"the stack is unlimited, so that threads of NCCL {version} get 2 MB; 8 MB are wanted",
        evidence=[Evidence(text="RLIMIT_STACK of a non-interactive session: unlimited", source=host.name)],
        fix=[Fix("Set it for the job: add `ulimit -s 8192` to setup: of the job file")],
    )
