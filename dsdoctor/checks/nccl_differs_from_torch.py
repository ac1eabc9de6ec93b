"""The NCCL that torch would load is not the one it was built for."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import PurePosixPath

from packaging.version import Version

from dsdoctor.checks.engine import check
from dsdoctor.checks.nccl_pin import Pin, loaded, pinned, version_of
from dsdoctor.checks.remedy import install, on_host
from dsdoctor.cluster import HostEntry
from dsdoctor.facts import FactUnavailable, HostFacts, NcclCopy
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped

# Where the loader looks before it looks beside torch (ld.so(8)); the wheel and torch's own copy come last.
_TAKEN_FROM = {
    "ld-preload": "LD_PRELOAD",
    "ld-library-path": "LD_LIBRARY_PATH",
    "conda": "the conda environment",
    "ldconfig": "the system's libraries",
    "system": "the system's libraries",
}


@check(severity=Severity.ERROR, since="0.1")
def nccl_differs_from_torch(host: HostFacts, entry: HostEntry) -> Iterator[Finding | Skipped]:
    """The libnccl.so.2 that torch would load has another version than torch's metadata asks for.

    ## Why it matters
    torch uses what its NCCL headers declare. An older library lacks functions (`undefined symbol: ncclCommSplit`),
    refuses newer structures (`ncclInvalidArgument`), or hangs at the first collective with no message at all. A newer
    one mostly works, since NCCL keeps its interface, but nobody tested the pair: that is a warning.

    ## How to fix it
    Take the other copy out of the way (LD_LIBRARY_PATH, LD_PRELOAD), or install the version that torch asks for.

    ## Source
    torch's own `Requires-Dist: nvidia-nccl-cuNN==…` against the version in the bytes of the library; NVIDIA/nccl,
    nccl.h tag by tag, for the symbols; nccl#1092 for the hang.
    """
    if host.torch.cuda is None:
        return
    pin = pinned(host)
    if pin is None:
        raise FactUnavailable("torch", "its metadata names no NCCL, so which one it was built for is not known")
    copy = loaded(host)
    if copy is None:
        if not host.nccl.owners:  # an owner without its file is for duplicate-nccl
            yield nccl_differs_from_torch.finding(
                f"torch {host.torch.version} asks for NCCL {pin.version}, and there is no libnccl.so.2 on the host",
                fix=[Fix("Install the one that torch asks for", (on_host(entry, install(host, pin.requirement)),))],
            )
        return
    seen, wanted = version_of(copy), Version(pin.version)
    # "+cuda13.2" beside a torch of CUDA 13.0 is usual; another major is another build.
    other_cuda = copy.cuda is not None and copy.cuda.split(".")[0] != host.torch.cuda.split(".")[0]
    if seen.release[:3] == wanted.release[:3] and not other_cuda:
        return
    build = f"{seen} for CUDA {copy.cuda}" if other_cuda else str(seen)
    yield nccl_differs_from_torch.finding(
        f"torch {host.torch.version} would load NCCL {build}; it asks for {pin.requirement}",
        severity=Severity.ERROR if seen < wanted else Severity.WARNING,
        evidence=[Evidence(text=text, source=host.name) for text in _why(host, copy)],
        fix=[_fix(host, entry, copy, pin)],
    )


def _why(host: HostFacts, copy: NcclCopy) -> Iterator[str]:
    """Where the library comes from, who installed it, and which copies the loader passes over for it."""
    owner = f", installed by the {copy.manager} package {copy.package}" if copy.package else ""
    yield f"loaded from {_TAKEN_FROM.get(copy.source, copy.source)}: {copy.path}{owner}"
    for other in host.nccl.copies[:6]:
        if other.path != copy.path:
            where = _TAKEN_FROM.get(other.source, f"the {other.source}" if other.source != "torch" else "torch itself")
            yield f"not taken, for it comes later: NCCL {other.version or 'of no version'} of {where}: {other.path}"


def _fix(host: HostFacts, entry: HostEntry, copy: NcclCopy, pin: Pin) -> Fix:
    where = _TAKEN_FROM.get(copy.source)
    folder = str(PurePosixPath(copy.path).parent)
    if copy.source in ("ld-preload", "ld-library-path"):
        title = f"Take {copy.path if copy.source == 'ld-preload' else folder} out of {where}, where it is set"
        search = f"grep -n {where} ~/.bashrc ~/.profile ~/.bash_profile /etc/environment /etc/profile.d/* 2>/dev/null"
        return Fix(title, (on_host(entry, search),))
    if copy.source == "conda":
        name = shlex.quote(str(PurePosixPath(copy.path).parents[1]))
        return Fix(
            "Remove conda's copy, then install the one that torch asks for",
            (
                on_host(
                    entry, f"conda remove -y --force -p {name} nccl && {install(host, pin.requirement, force=True)}"
                ),
            ),
        )
    # pip fetches before it takes anything away, so that a failed download leaves things as they are.
    command = on_host(entry, install(host, pin.requirement, force=True))
    return Fix("Install the one that torch asks for", (command,), safe=copy.source in ("wheel", "torch"))
