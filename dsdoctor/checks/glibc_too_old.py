"""A torch built for a newer C library than the host has."""

from __future__ import annotations

import re
from collections.abc import Iterator

from dsdoctor.checks.engine import check
from dsdoctor.facts import HostFacts
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped


@check(severity=Severity.ERROR, since="0.1")
def glibc_too_old(host: HostFacts) -> Iterator[Finding | Skipped]:
    """The libraries of the installed torch need a newer glibc than this host has.

    ## Why it matters
    `import torch` fails with "/lib64/libc.so.6: version `GLIBC_2.28' not found". pip does not install such a torch, but
    an environment in a shared home, or one copied from another host, may come to a host with an older system: torch's
    wheels need glibc 2.28 since 2.7 (some builds since 2.6), CentOS 7 has 2.17, Amazon Linux 2 has 2.26.

    ## How to fix it
    Use a torch that was built for older systems, a newer system, or a container with one.

    ## Source
    The symbol versions that torch's libraries name (.gnu.version_r); pytorch/pytorch#123649, #126551.
    """
    needed, system = host.torch.glibc, host.os.libc
    if needed is None or not system:
        return
    there = re.match(r"glibc (\d{1,6})\.(\d{1,6})", system)
    wanted = re.match(r"(\d{1,6})\.(\d{1,6})", needed)
    if wanted is None or (there is None and system != "musl"):
        return
    if there is not None and _numbers(there) >= _numbers(wanted):
        return
    yield glibc_too_old.finding(
        f"torch {host.torch.version} needs glibc {needed}, and the host has {system}; it cannot be imported",
        evidence=[
            Evidence(text=f"libraries in {host.torch.path}/lib ask for GLIBC_{needed}", source=host.name),
            Evidence(text=f"system: {host.os.distribution or 'unknown'}, {system}", source=host.name),
        ],
        fix=[
            Fix("Use a torch that older systems can load (on PyPI up to 2.5 for glibc 2.17)"),
            Fix("Run the job in a container with a newer system: the kernel and the driver may stay"),
        ],
    )


def _numbers(match: re.Match[str]) -> tuple[int, int]:
    return int(match[1]), int(match[2])
