"""A kernel below the one that accelerate recommends."""

from __future__ import annotations

import re
from collections.abc import Iterator

from dsdoctor.checks.engine import check
from dsdoctor.checks.job_gpus import container
from dsdoctor.cluster import Cluster, HostEntry
from dsdoctor.facts import FactUnavailable, HostFacts
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped

_RECOMMENDED = (5, 5)


@check(severity=Severity.INFO, since="0.1")
def kernel_too_old(host: HostFacts, entry: HostEntry, cluster: Cluster) -> Iterator[Finding | Skipped]:
    """The kernel is older than 5.5, below which some runs with several ranks have hung.

    ## Why it matters
    accelerate says it at every start: "Detected kernel version 3.10.0, which is below the recommended minimum of 5.5.0;
    this can cause the process to hang". Many clusters run well on the kernels of RHEL 7 and 8, which carry later mends
    under an old number; where a run with several ranks hangs without a word, it is one of the things to look at.

    ## How to fix it
    Nothing, as long as runs work. A newer kernel is the distribution's to give; a container has the machine's.

    ## Source
    check_os_kernel in accelerate/utils/other.py; huggingface/accelerate#1929, #2573. DeepSpeed itself asks for no
    kernel, not for async_io either (op_builder/async_io.py).
    """
    digits = re.match(r"(\d{1,6})\.(\d{1,6})", host.os.kernel)
    if digits is None or (int(digits[1]), int(digits[2])) >= _RECOMMENDED:
        return
    if not _has_accelerate(host) or sum(member.entry.processes for member in cluster) < 2:
        return
    whose = "the machine's kernel" if container(host) else "the kernel"
    yield kernel_too_old.finding(
        f"{whose} is {host.os.kernel}; accelerate recommends 5.5 or newer and warns at every start",
        evidence=[Evidence(text=f"uname -r: {host.os.kernel}", source=host.name)],
        fix=[Fix("Leave it as long as runs work; where one hangs without a word, try a host with a newer kernel")],
    )


def _has_accelerate(host: HostFacts) -> bool:
    """Whether accelerate is there to warn; where the packages are not known it may be."""
    try:
        return host.packages.version("accelerate") is not None
    except FactUnavailable:
        return True
