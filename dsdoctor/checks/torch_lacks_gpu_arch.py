"""The job's torch holds no code for a GPU of the host."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from dsdoctor.checks.engine import check
from dsdoctor.checks.remedy import install, on_host
from dsdoctor.cluster import HostEntry
from dsdoctor.facts import FactUnavailable, HostFacts
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped

_ARCH = re.compile(r"(?P<kind>sm|compute)_(?P<major>\d+)(?P<minor>\d)(?P<only>[af]?)$")

# What of the package index has code for an older or newer card: release matrices of torch (pytorch PR #164471,
# #175253, RFC #178665): 2.10 is the last with 7.0 (CUDA 12.8), 2.7 the last with 5.x and 6.x, 2.8 the first with 12.0.
_NEEDS = (((5, 0), (6, 2), "torch<2.8"), ((7, 0), (7, 2), "torch<2.11"), ((10, 0), (12, 9), "torch>=2.8"))


@check(severity=Severity.ERROR, since="0.1")
def torch_lacks_gpu_arch(host: HostFacts, entry: HostEntry) -> Iterator[Finding | Skipped]:
    """The job's torch was built without code for one of the host's GPUs.

    ## Why it matters
    Everything starts, and the first kernel fails: `no kernel image is available for execution on the device`. Builds
    for CUDA 13, which is what the package index gives from torch 2.11 on, have nothing for a V100.

    ## How to fix it
    Install a build that has the card's architecture, the same on all hosts, or leave the host out.

    ## Source
    The architectures in torch's own files. Code for sm_86 runs on 8.9 too (same major, not newer), and PTX
    (compute_90) is compiled by the driver for anything newer: CUDA C++ Programming Guide, "Binary Compatibility".
    """
    if host.torch.cuda is None or not host.gpu.gpus:
        return
    built = host.torch.arch_list
    if built is None:
        raise FactUnavailable("torch", "the list of architectures it was built for could not be read")
    for index, name, capability in _cards(host, entry):
        if capability is None:
            raise FactUnavailable("gpu", f"the compute capability of GPU {index} is not known")
        if runs_on(built, capability):
            continue
        shown = f"{capability[0]}.{capability[1]}"
        yield torch_lacks_gpu_arch.finding(
            f"torch {host.torch.version} has no code for compute capability {shown} ({name}); "
            f"it was built for {', '.join(built)}",
            evidence=[Evidence(text=f"GPU {index}: {name}, compute capability {shown}", source=host.name)],
            fix=_fixes(host, entry, capability),
        )


def runs_on(built: Iterable[str], capability: tuple[int, int]) -> bool:
    """Whether a build with these architectures runs on a card.

    Binary code runs on the same major version, not older a minor; PTX on anything not older. With the letter a it is
    for that card alone, with f for the family.
    """
    for name in built:
        match = _ARCH.match(name)
        if match is None:
            continue
        arch = (int(match["major"]), int(match["minor"]))
        if match["only"] == "a":
            fits = arch == capability
        elif match["kind"] == "compute" and not match["only"]:
            fits = arch <= capability
        else:
            fits = arch[0] == capability[0] and arch <= capability
        if fits:
            return True
    return False


def _cards(host: HostFacts, entry: HostEntry) -> Iterator[tuple[int, str, tuple[int, int] | None]]:
    """The GPUs the job uses."""
    for gpu in host.gpu.gpus:
        if gpu.index in (entry.devices if entry.devices is not None else range(entry.slots)):
            yield gpu.index, gpu.name, gpu.compute_capability


def _fixes(host: HostFacts, entry: HostEntry, capability: tuple[int, int]) -> Iterator[Fix]:
    wanted = next((build for low, high, build in _NEEDS if low <= capability <= high), None)
    if wanted:
        title = f"Install a torch that has {capability[0]}.{capability[1]}, the same on every host"
        yield Fix(title, (on_host(entry, install(host, wanted)),))
    yield Fix(f"Leave the host out: --exclude {entry.name}")
