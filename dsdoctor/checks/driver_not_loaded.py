"""An NVIDIA card is there and its kernel module is not loaded."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

from dsdoctor.checks.engine import check
from dsdoctor.checks.remedy import as_root
from dsdoctor.cluster import HostEntry
from dsdoctor.facts import DriverFacts, FactUnavailable, HostFacts
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped

_START = {
    "docker": ("docker run --gpus all …",),
    "podman": ("podman run --device nvidia.com/gpu=all …",),
}


@check(severity=Severity.ERROR, since="0.1")
def driver_not_loaded(host: HostFacts, entry: HostEntry) -> Iterator[Finding | Skipped]:
    """The host has an NVIDIA card, or the driver's sources, but the nvidia kernel module is not loaded.

    ## Why it matters
    nvidia-smi says "couldn't communicate with the NVIDIA driver", torch sees no GPU, and a program that starts
    distributed training only where it sees one fails on this host alone: `Default process group has not been
    initialized`. The usual cause is a kernel update: the host was rebooted into a kernel that the module was never
    built for.

    ## How to fix it
    Build the module for the running kernel with dkms (the kernel's headers must be there), then load it.

    ## Source
    /proc/driver/nvidia/version, sysfs' PCI devices, dkms(8).
    """
    driver = host.driver
    if driver.loaded or not (driver.pci_gpus or driver.sources or _modules(driver)):
        return
    kernel = driver.kernel or "now running"
    cards = f"{len(driver.pci_gpus)} NVIDIA card{'' if len(driver.pci_gpus) == 1 else 's'}"
    container = _container(host)
    if container:
        if driver.pci_gpus:
            yield driver_not_loaded.finding(
                f"the machine has {cards}, and this container ({container}) was given none of them",
                severity=Severity.WARNING,
                fix=[
                    Fix(
                        "Start the container with its GPUs; the driver belongs to the machine",
                        _START.get(container, ()),
                    )
                ],
            )
        return
    evidence = [Evidence(text=text, source=host.name) for text in _seen(driver)]
    if not driver.pci_gpus:
        yield driver_not_loaded.finding(
            "an NVIDIA driver is installed, but no NVIDIA card is on the PCI bus and the module is not loaded",
            severity=Severity.WARNING,
            evidence=evidence,
            fix=[Fix("See whether the card sits and has power", (as_root(host, entry, "lspci -nn -d 10de:"),))],
        )
        return
    yield driver_not_loaded.finding(
        f"the host has {cards}, and the nvidia module is not loaded in kernel {kernel}; nothing can use the GPUs",
        evidence=evidence,
        fix=_fixes(host, entry, driver),
    )


def _fixes(host: HostFacts, entry: HostEntry, driver: DriverFacts) -> Iterator[Fix]:
    if "nouveau" in driver.modules:
        lines = (
            as_root(host, entry, "tee /etc/modprobe.d/blacklist-nouveau.conf", fed_by='echo "blacklist nouveau"'),
            as_root(host, entry, "dracut --force || sudo update-initramfs -u"),
        )
        yield Fix("The free driver nouveau holds the cards: keep it from loading, and reboot", lines)
    if driver.module_files:
        yield Fix("The module is built for this kernel: load it", (as_root(host, entry, "modprobe nvidia"),))
        yield Fix(
            "Where that fails, the kernel says why",
            (as_root(host, entry, "dmesg | grep -iE 'nvrm|nvidia|lockdown'"),),
        )
        return
    modules = _modules(driver)
    if not modules:
        yield Fix("No driver is installed for this kernel: install the distribution's, or NVIDIA's, and reboot")
        return
    module, version = modules[-1]
    headers = _headers(host, driver.kernel)
    if headers:
        yield Fix("The kernel's headers must be there for the build", (as_root(host, entry, headers),))
    build = f"dkms install -m {shlex.quote(module)} -v {shlex.quote(version)}"
    commands = (as_root(host, entry, build), as_root(host, entry, "modprobe nvidia"))
    yield Fix("Build the module for the running kernel, and load it", commands)


def _modules(driver: DriverFacts) -> list[tuple[str, str]]:
    """What dkms could build, newest last: its own entries, else the folders /usr/src/nvidia-VERSION."""
    known = {(entry.module, entry.version) for entry in driver.dkms if entry.module.startswith("nvidia")}
    known = known or {("nvidia", version) for version in driver.sources}
    return sorted(known, key=lambda module: [int(part) for part in re.findall(r"\d+", module[1])])


def _seen(driver: DriverFacts) -> Iterator[str]:
    yield "/proc/driver/nvidia/version does not exist"
    for entry in driver.dkms:
        yield f"dkms: {entry.module}/{entry.version}, {entry.kernel or 'no kernel'}: {entry.status}"
    if driver.sources:
        yield f"sources: {', '.join(f'/usr/src/nvidia-{version}' for version in driver.sources)}"
    yield f"module files for this kernel: {', '.join(driver.module_files) or 'none'}"


def _headers(host: HostFacts, kernel: str) -> str | None:
    """The command that installs the headers of a kernel, for the distributions whose package names are known."""
    try:
        family = host.os.distribution_id
    except FactUnavailable:
        return None
    if family in ("debian", "ubuntu"):
        return f"apt-get install -y linux-headers-{shlex.quote(kernel)}"
    if family in ("centos", "rhel", "rocky", "almalinux", "fedora", "ol"):
        return f"yum install -y kernel-devel-{shlex.quote(kernel)}"
    return None


def _container(host: HostFacts) -> str | None:
    try:
        kind = host.container.kind
    except FactUnavailable:
        return None
    return None if kind == "none" else kind
