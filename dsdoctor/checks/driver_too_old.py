"""The kernel driver is older than the CUDA that torch was built for."""

from __future__ import annotations

from collections.abc import Iterator

from packaging.version import InvalidVersion, Version

from dsdoctor.checks.engine import check
from dsdoctor.checks.remedy import install, on_host
from dsdoctor.cluster import HostEntry
from dsdoctor.facts import FactUnavailable, HostFacts
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped

# CUDA major -> the oldest Linux driver that runs its programs (minor versions are compatible among themselves):
# docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html and the CUDA 12.8 release notes, table 2.
MINIMUM = {11: "450.80.02", 12: "525.60.13", 13: "580"}

# CUDA major -> the newest torch whose wheel on the package index is built for it: the metadata of torch's releases
# (2.0.1 pins CUDA 11.7, 2.10.0 pins 12.8, 2.11.0 the toolkit 13.0).
OLDER_TORCH = {11: "torch<2.1", 12: "torch<2.11"}


@check(severity=Severity.ERROR, since="0.1")
def driver_too_old(host: HostFacts, entry: HostEntry) -> Iterator[Finding | Skipped]:
    """The driver is older than the CUDA version of the job's torch needs.

    ## Why it matters
    torch says "The NVIDIA driver on your system is too old" and sees no GPU. It often comes with a plain `pip install
    torch`: from 2.11 on, the wheel of the package index is built for CUDA 13, which needs driver 580.

    ## How to fix it
    Install a newer driver, or a torch built for the CUDA that this driver can run. "CUDA Version" in nvidia-smi is
    the newest CUDA of the driver, not the installed toolkit.

    ## Source
    NVIDIA's CUDA compatibility guide; the metadata of torch's wheels.
    """
    if host.torch.cuda is None:
        return
    text = host.gpu.driver_version or host.driver.version
    if text is None:
        if not host.gpu.gpus:
            return  # no card in use, no driver wanted; a card without its driver is for driver-not-loaded
        raise FactUnavailable("gpu", "the driver's version is not known")
    try:
        driver, major = Version(text), int(host.torch.cuda.split(".")[0])
    except (InvalidVersion, ValueError):
        raise FactUnavailable("gpu", f"driver {text} and CUDA {host.torch.cuda} cannot be compared") from None
    minimum = MINIMUM.get(major)
    if minimum is None or driver >= Version(minimum):
        return
    if _forward_compatible(host):
        raise FactUnavailable("driver", "CUDA's forward-compatibility library is in LD_LIBRARY_PATH")
    yield driver_too_old.finding(
        f"the driver is {text}; CUDA {host.torch.cuda} (torch {host.torch.version}) needs {minimum} or newer",
        evidence=[
            Evidence(text=f"driver {text}, up to CUDA {host.gpu.cuda_driver_version or 'unknown'}", source=host.name)
        ],
        fix=_fixes(host, entry, driver),
    )


def _forward_compatible(host: HostFacts) -> bool:
    """Whether NVIDIA's cuda-compat package, which runs newer CUDA on older data-centre drivers, is in use."""
    try:
        return "/compat" in host.environment.variables.get("LD_LIBRARY_PATH", "")
    except FactUnavailable:
        return False


def _fixes(host: HostFacts, entry: HostEntry, driver: Version) -> Iterator[Fix]:
    runs = [major for major, minimum in MINIMUM.items() if driver >= Version(minimum)]
    if runs and max(runs) in OLDER_TORCH:
        older = install(host, OLDER_TORCH[max(runs)])
        title = f"Take a torch built for CUDA {max(runs)}, which this driver runs (the same on every host)"
        yield Fix(title, (on_host(entry, older),))
    yield Fix("Install a newer driver on the host, and reboot")
