"""The driver's library and the kernel module that is loaded are of two versions."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.engine import check
from dsdoctor.checks.job_gpus import container
from dsdoctor.checks.remedy import as_root
from dsdoctor.cluster import HostEntry
from dsdoctor.facts import FactUnavailable, HostFacts
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped

_MODULES = "nvidia_drm nvidia_modeset nvidia_uvm nvidia"


@check(severity=Severity.ERROR, since="0.1")
def nvml_mismatch(host: HostFacts, entry: HostEntry) -> Iterator[Finding | Skipped]:
    """The driver's libraries were upgraded, and the kernel module that is loaded is still the older one.

    ## Why it matters
    nvidia-smi says "Failed to initialize NVML: Driver/library version mismatch", and CUDA finds no GPU: torch's ranks
    stop on this host, or train on its processors. It comes with unattended upgrades, days before anyone notices.

    ## How to fix it
    Reboot, or unload the old module and load the new one while nothing uses the cards. In a container: start it again,
    since it was given the libraries of the driver that was there when it started.

    ## Source
    NVML_ERROR_LIB_RM_VERSION_MISMATCH (nvml.h), /proc/driver/nvidia/version, the library's file name.
    """
    if host.gpu.status != "library-mismatch":
        return
    module, library = _versions(host)
    kernel = f"the kernel module that is loaded is {module}" if module else "another kernel module is loaded"
    yield nvml_mismatch.finding(
        f"the driver's library is {library or 'of another version'} and {kernel}; no GPU can be used until they agree",
        evidence=[
            Evidence(text=f"NVML: {host.gpu.detail or 'version mismatch'}", source=host.name),
            *([Evidence(text=f"/proc/driver/nvidia/version: {module}", source=host.name)] if module else []),
        ],
        fix=_fixes(host, entry),
    )


def _versions(host: HostFacts) -> tuple[str | None, str | None]:
    try:
        return host.driver.version, host.driver.library_version
    except FactUnavailable:
        return None, None


def _fixes(host: HostFacts, entry: HostEntry) -> Iterator[Fix]:
    if container(host):
        yield Fix("Start the container again: it gets the libraries of the driver that is loaded now")
        return
    yield Fix("Reboot the host", (as_root(host, entry, "reboot"),))
    commands = (as_root(host, entry, f"modprobe -r {_MODULES}"), as_root(host, entry, "modprobe nvidia"))
    yield Fix("Or, while nothing uses the cards, load the module anew", commands)
