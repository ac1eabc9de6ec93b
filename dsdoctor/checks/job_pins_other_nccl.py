"""A requirement of the job would put another NCCL over the one that torch brings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress

from packaging.utils import canonicalize_name

from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.installed import applies, marker_environment, meets, requirement, versions
from dsdoctor.checks.nccl_pin import Pin, pinned
from dsdoctor.facts import FactUnavailable, HostFacts
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped

_WHEEL = re.compile(r"nvidia-nccl-cu\d+")


@check(severity=Severity.WARNING, since="0.1")
def job_pins_other_nccl(host: HostFacts, context: JobContext) -> Iterator[Finding | Skipped]:
    """The job's requirements name an NCCL wheel that is not the one of the installed torch.

    ## Why it matters
    All nvidia-nccl-… wheels install one and the same file. `pip install -r requirements.txt` with a line of another
    time (TRACE pins nvidia-nccl-cu11==2.14.3) writes an older NCCL over torch's own: `Invalid config blocking attribute
    value -2147483648`, undefined symbols, hangs; and taking it away again deletes the file. duplicate-nccl tells when
    it has happened.

    ## How to fix it
    Take the line out. torch brings its NCCL along.

    ## Source
    The job file or the requirements.txt beside its code, against the requirement in torch's own metadata; what is
    installed already is duplicate-nccl's and nccl-differs-from-torch's business.
    """
    there, markers = versions(host), marker_environment(host)
    for asked in context.job.requirements:
        wanted = requirement(asked.text)
        if wanted is None or not applies(wanted, markers) or meets(wanted, there)[0]:
            continue
        brought = fights_torch(canonicalize_name(wanted.name), host)
        if brought is None or (wanted.name == brought.package and wanted.specifier.contains(brought.version)):
            continue
        text = asked.text.partition(";")[0].strip()
        yield job_pins_other_nccl.finding(
            f"the job asks for {text}, and torch {host.torch.version} brings {brought.requirement}, which owns the "
            "same libnccl.so.2: the one installed last would be loaded",
            evidence=[Evidence(text=asked.text, source=asked.source, line=asked.line)],
            fix=[Fix(f"Take the line out of {asked.source}: torch brings its own")],
        )


def fights_torch(name: str, host: HostFacts) -> Pin | None:
    """The NCCL that the host's torch brings, where a package of this name would be written over it."""
    if not _WHEEL.fullmatch(name):
        return None
    with suppress(FactUnavailable):
        return pinned(host)
    return None
