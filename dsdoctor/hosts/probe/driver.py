"""NVIDIA's driver: loaded, installed, built for which kernels."""

from __future__ import annotations

import os

from .files import SBIN, at, entries, read_or, unique, which
from .loader import SYSTEM_FOLDERS, loader_cache, path_list
from .pci import nvswitches, pci_gpus
from .processes import running
from .programs import run
from .question import Ask, section

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


@section
def fact_driver(ask: Ask) -> dict[str, Any]:
    """Source: /proc/driver/nvidia/version, `dkms status`, /usr/src, /lib/modules, /sys/module, /sys/bus/pci."""
    kernel = os.uname().release
    text = read_or(at("/proc/driver/nvidia/version"))
    dkms = which("dkms", SBIN)
    return {
        "loaded": bool(text),
        "version": driver_version(text) if text else None,
        "kernel": kernel,
        "dkms_available": dkms is not None,
        "dkms": dkms_status(dkms) if dkms else [],
        "sources": sources(entries(at("/usr/src"))),
        "module_files": module_files(kernel),
        "pci_gpus": pci_gpus(),
        "modules": [name for name in entries(at("/sys/module")) if name.startswith("nvidia") or name == "nouveau"],
        "open_module": "Open Kernel Module" in text if text else None,
        "library_version": nvml_library_version(),
        "fabric_manager_running": running("nv-fabricmanager") if nvswitches() else None,
    }


def sources(names: list[str]) -> list[str]:
    """The versions of the driver's sources: nvidia-535.154.05, nvidia-open-535.154.05."""
    found = []
    for name in names:
        version = name[len("nvidia-") :].replace("open-", "", 1) if name.startswith("nvidia-") else ""
        if version[:1].isdigit() and version.replace(".", "").replace("_", "").isalnum():
            found.append(version)
    return unique(found)


def nvml_library_version() -> str | None:
    """The driver's version in the name of the NVML that the loader finds: libnvidia-ml.so.1 points to .535.154.05."""
    found = [folder + "/libnvidia-ml.so.1" for folder in path_list("LD_LIBRARY_PATH")]
    found += loader_cache("libnvidia-ml.so.1") + [at(folder) + "/libnvidia-ml.so.1" for folder in SYSTEM_FOLDERS]
    real = next((os.path.realpath(path) for path in found if os.path.isfile(path)), "")
    version = real.rpartition(".so.")[2]
    return version if "." in version and version.replace(".", "0").isdigit() else None


def driver_version(text: str) -> str | None:
    """The version in /proc/driver/nvidia/version, of the proprietary and of the open kernel module."""
    import re

    match = re.search(r"Kernel Module(?:\s+for\s+\S+)?\s+(\d+(?:\.\d+)+)", text)
    return match.group(1) if match else None


def dkms_status(program: str) -> list[dict[str, str]]:
    """`dkms status` of the nvidia modules. Raises ProbeError when it does not end."""
    return parse_dkms(run([program, "status"])[1])


def parse_dkms(text: str) -> list[dict[str, str]]:
    """The nvidia lines of `dkms status`, as dkms 2 and dkms 3 print them.

    `nvidia, 535.154.05, 3.10.0-1160.el7.x86_64, x86_64: installed`, `nvidia/535.154.05, 5.15.0-91-generic, x86_64:
    installed`, and for a module that is not built yet `nvidia/535.154.05: added`.
    """
    import re

    found = []
    for line in text.splitlines():
        left, colon, status = line.rpartition(": ")
        words = re.split(r"\s*,\s*|/", left.strip())
        if not colon or len(words) < 2 or not words[0].startswith("nvidia"):
            continue
        found.append(
            {
                "module": words[0],
                "version": words[1],
                "kernel": words[2] if len(words) > 2 else "",
                "status": status.split()[0] if status.split() else "",
            }
        )
    return found


def is_driver(name: str) -> bool:
    """Whether a file's name is the driver's, compressed or not: nvidia.ko, nvidia.ko.xz."""
    return name == "nvidia.ko" or (name[:10] == "nvidia.ko." and name[10:].isalnum())


def module_files(kernel: str) -> list[str]:
    """nvidia.ko, compressed or not, that modules.dep of the running kernel names or that lies in a usual folder."""
    base = at("/lib/modules/%s/" % kernel)
    named = [
        line.partition(":")[0]
        for line in (read_or(base + "modules.dep", limit=16 << 20).splitlines())
        if "/nvidia.ko" in line and is_driver(line.partition(":")[0].rpartition("/")[2])
    ]
    folders = (
        "updates/dkms",
        "updates",
        "extra",
        "extra/nvidia",
        "weak-updates/nvidia",
        "kernel/drivers/video",
        "misc",
    )
    usual = ["%s/%s" % (folder, name) for folder in folders for name in entries(base + folder) if is_driver(name)]
    return [base + name for name in unique(named + usual) if os.path.exists(base + name)]
