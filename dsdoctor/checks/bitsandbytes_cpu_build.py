"""bitsandbytes would load its CPU library on a host with CUDA."""

from __future__ import annotations

import re
from collections.abc import Iterator

from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.quantisation import quantises
from dsdoctor.checks.remedy import install, on_host
from dsdoctor.cluster import HostEntry
from dsdoctor.facts import FactUnavailable, HostFacts
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped

_LIBRARY = re.compile(r"libbitsandbytes_cuda(?P<digits>\d{3})(?:_nocublaslt)?\.so$")

# The first release with a binary for a CUDA version, by the build matrix of its tags (0.43.0 … 0.50.1).
FIRST_WITH = {
    "12.4": "0.43.1",
    "12.5": "0.43.3",
    "12.6": "0.45.0",
    "12.8": "0.45.3",
    "12.9": "0.46.1",
    "13.0": "0.48.0",
}

# The release whose loader takes the nearest CUDA of the same major version when the exact one is not there.
NEAREST_SINCE = (0, 50)


@check(severity=Severity.WARNING, since="0.1")
def bitsandbytes_cpu_build(
    host: HostFacts, entry: HostEntry, context: JobContext | None
) -> Iterator[Finding | Skipped]:
    """The installed bitsandbytes has no library for the CUDA of the job's torch, and would load the one for CPUs.

    ## Why it matters
    "The installed version of bitsandbytes was compiled without GPU support", `undefined symbol: cadam32bit_grad_fp32`
    or `cget_col_row_stats`. A job that uses 8-bit or 4-bit weights, an 8-bit optimizer or quantised ZeRO++ fails; for
    any other it is a warning in the log that gets blamed for everything else.

    ## How to fix it
    Install a bitsandbytes that has a library for torch's CUDA. The choice goes by `torch.version.cuda`, not by nvcc.

    ## Source
    The loader of bitsandbytes (cextension.py), and the file names beside it; its releases' build matrices.
    """
    package = host.bitsandbytes
    cuda = host.torch.cuda
    if package.version is None or cuda is None:
        return
    wanted = _digits(host, cuda)
    if wanted is None:
        raise FactUnavailable("torch", f"CUDA version {cuda} cannot be read")
    there = sorted({match["digits"] for name in package.libraries if (match := _LIBRARY.match(name))})
    if wanted in there or (_nearest(package.version) and any(digits[:2] == wanted[:2] for digits in there)):
        return
    uses = tuple(quantises(context)) if context else ()
    version = f"{int(wanted[:2])}.{wanted[2]}"
    yield bitsandbytes_cpu_build.finding(
        f"bitsandbytes {package.version} has no library for CUDA {version}, which torch {host.torch.version} uses; "
        f"it would load the one for CPUs",
        severity=Severity.ERROR if uses else Severity.WARNING if context is None else Severity.INFO,
        evidence=[
            Evidence(
                text=f"wanted: libbitsandbytes_cuda{wanted}.so; there: {', '.join(package.libraries)}", source=host.name
            ),
            *uses,
        ],
        fix=[_fix(host, entry, version, uses)],
    )


def _digits(host: HostFacts, cuda: str) -> str | None:
    """The digits in the library's name: BNB_CUDA_VERSION where it is set, else those of torch's CUDA."""
    try:
        override = host.environment.variables.get("BNB_CUDA_VERSION", "")
    except FactUnavailable:
        override = ""
    digits = override or "".join(cuda.split(".")[:2])
    return digits if re.fullmatch(r"\d{3}", digits) else None


def _nearest(version: str) -> bool:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2]) >= NEAREST_SINCE


def _fix(host: HostFacts, entry: HostEntry, cuda: str, uses: tuple[Evidence, ...]) -> Fix:
    first = FIRST_WITH.get(cuda)
    requirement = f"bitsandbytes>={first}" if first else "bitsandbytes>=0.43"
    title = f"Install a bitsandbytes with a library for CUDA {cuda}"
    if not uses:
        title += ", or uninstall it: this job does not use it"
    return Fix(title, (on_host(entry, install(host, requirement)),))
