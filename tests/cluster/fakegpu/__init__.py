"""Makes a host of the little cluster look as if it had NVIDIA GPUs.

A stand-in, said openly: a library that answers NVML's calls from a text file (fake_nvml.c), and around it what a
driver leaves in /proc, /sys, /usr/src and in `dkms status`. The callers are real: unmodified nvidia-ml-py and ctypes
load the library through the host's own loader. Nothing here has been compared with a real card or driver: not the
figures of the profiles, not which code a function gives when, not the layout of the lines in
/proc/driver/nvidia/version. What a test proves with it is that dsdoctor reads NVML as its documentation has it.
"""

from __future__ import annotations

import atexit
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol

HERE = Path(__file__).parent
PROFILES = tuple(sorted(path.stem for path in HERE.glob("*.conf")))
CONFIG = "/etc/dsdoctor-test/fake_nvml.conf"
PLANTED = "/run/dsdoctor-test"  # on the host's tmpfs: what is mounted over /proc/driver and parts of /sys
PCI_LINK = {
    f"{when}_link_{what}": value
    for when in ("current", "max")
    for what, value in (("width", "16"), ("speed", "16.0 GT/s PCIe"))
}
OLD_KERNEL = "5.14.0-284.11.1.el9_2.x86_64"  # what dkms built the module for before the kernel was upgraded

MOUNT = """
set -e
for below in bus/pci module; do
  mkdir -p "$0/$below/upper" "$0/$below/work"
  mount -t overlay overlay -o "lowerdir=/sys/$below,upperdir=$0/$below/upper,workdir=$0/$below/work" "/sys/$below"
done
mount --bind "$0/proc" /proc/driver
ldconfig
"""
REMOVE = """
for place in /sys/bus/pci /sys/module /proc/driver; do
  ! mountpoint -q "$place" || umount "$place"
done
rm -rf "$0" "$@"
ldconfig
"""


class Host(Protocol):
    """What is needed of a host of the little cluster."""

    def run(self, argv: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """Run a command inside."""

    def write(self, path: str, content: str | bytes, *, mode: int = 0o644) -> None:
        """Write a file inside."""


@dataclass(frozen=True)
class Profile:
    """A profile's text and what of it is read here rather than by the library."""

    text: str
    driver: str
    kernel_module: str | None  # version of the loaded module, None when none is loaded
    cards: tuple[tuple[str, str], ...]  # PCI address and device number, as in sysfs


def missing_for_fake_gpus() -> str:
    """Why the stand-in cannot be built, or an empty text."""
    return "" if shutil.which("gcc") else "the stand-in for NVML needs the package gcc"


@cache
def library_folder() -> Path:
    """A temporary folder with libnvidia-ml.so.1, built once a process."""
    folder = Path(tempfile.mkdtemp(prefix="dsdoctor-fake-nvml-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    flags = ["-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-Wl,-soname,libnvidia-ml.so.1"]
    subprocess.run(["gcc", *flags, "-o", folder / "libnvidia-ml.so.1", HERE / "fake_nvml.c"], check=True)
    return folder


@cache
def library_path(driver: str) -> str:
    """Where a distribution puts the library: in the loader's default folder, under the driver's version."""
    multiarch = subprocess.run(["gcc", "-print-multiarch"], capture_output=True, text=True, check=True).stdout.strip()
    return f"/usr/lib{f'/{multiarch}' if multiarch else '64'}/libnvidia-ml.so.{driver}"


def read_profile(name: str, more: Mapping[int, Sequence[str]] | None = None) -> Profile:
    """A profile by name; `more` adds lines to single GPUs, by index: `{1: ["lost 1"]}`.

    Raises:
        FileNotFoundError: there is no such profile.
        IndexError: `more` names a GPU that the profile does not have.
    """
    blocks = (HERE / f"{name}.conf").read_text(encoding="utf-8").split("\ngpu ")
    for index, lines in (more or {}).items():
        blocks[1:][index]
        blocks[index + 1] = "\n".join([blocks[index + 1].rstrip("\n"), *lines, ""])
    text = "\ngpu ".join(blocks)
    pairs = [line.split(maxsplit=1) for line in text.splitlines() if line.strip() and not line.startswith("#")]
    first = dict(reversed(pairs))
    # The library gives GPUs without a "bus" line these addresses, too.
    devices = [value for key, value in pairs if key == "pci_device"]
    cards = tuple((f"0000:{0x17 + 0x20 * index:02x}:00.0", device) for index, device in enumerate(devices))
    return Profile(text, first["driver"], first.get("kernel"), cards)


def install(host: Host, name: str, more: Mapping[int, Sequence[str]] | None = None) -> None:
    """Give a host the GPUs of a profile; those it had before go. See :func:`read_profile`."""
    remove(host)
    profile = read_profile(name, more)
    kernel = host.run(["uname", "-r"]).stdout.strip()
    host.write(library_path(profile.driver), (library_folder() / "libnvidia-ml.so.1").read_bytes(), mode=0o755)
    host.write(CONFIG, profile.text)
    for address, device in profile.cards:
        kind = "0x030000" if device == "0x2684" else "0x030200"  # display of a GeForce, 3D controller of the others
        files = {"vendor": "0x10de", "device": device.lower(), "class": kind, **PCI_LINK}
        for file, content in files.items():
            host.write(f"{PLANTED}/bus/pci/upper/devices/{address}/{file}", f"{content}\n")
        if profile.kernel_module:
            driver = f"{PLANTED}/bus/pci/upper/devices/{address}/driver"
            host.run(["ln", "-sfn", "../../drivers/nvidia", driver])
    host.write(f"/usr/src/nvidia-{profile.driver}/dkms.conf", f'PACKAGE_VERSION="{profile.driver}"\n')
    built_for = kernel if profile.kernel_module else OLD_KERNEL
    dkms_line = f"nvidia/{profile.driver}, {built_for}, x86_64: installed"
    host.write("/usr/sbin/dkms", f"#!/bin/sh\n[ \"$1\" = status ] && echo '{dkms_line}'\n", mode=0o755)
    host.write(f"/lib/modules/{built_for}/updates/dkms/nvidia.ko", b"\x7fELF")
    host.run(["mkdir", "-p", f"{PLANTED}/proc"])
    if profile.kernel_module:
        host.write(f"{PLANTED}/proc/nvidia/version", kernel_module_text(profile.kernel_module))
        for module in ("nvidia", "nvidia_uvm"):
            host.write(f"{PLANTED}/module/upper/{module}/initstate", "live\n")
    host.run(["sh", "-c", MOUNT, PLANTED])


def remove(host: Host) -> None:
    """Take the GPUs away again; nothing happens when there are none."""
    libraries = library_path("*")
    planted = [CONFIG, "/usr/src/nvidia-*", "/usr/sbin/dkms", "/lib/modules/*/updates/dkms/nvidia.ko", libraries]
    host.run(["sh", "-c", f"set -- {' '.join(planted)}\n{REMOVE}", PLANTED])


def kernel_module_text(version: str) -> str:
    """/proc/driver/nvidia/version, in the form of the proprietary module."""
    return (
        f"NVRM version: NVIDIA UNIX x86_64 Kernel Module  {version}  Thu Dec 28 15:37:48 UTC 2023\n"
        "GCC version:  gcc version 11.4.1 20230605 (Red Hat 11.4.1-2) (GCC)\n"
    )
