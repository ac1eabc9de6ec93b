"""GPUs on the PCI bus, and the bridges above them."""

from __future__ import annotations

import os
import struct

from .files import MEMO, at, entries, link_target, number, read, read_or, unique
from .question import Ask, section

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def nvidia_devices() -> dict[str, str]:
    """NVIDIA's devices on the bus, each with its class, looked at once. Source: /sys/bus/pci/devices."""
    if "nvidia devices" not in MEMO:
        base = at("/sys/bus/pci/devices/")
        own = [name for name in entries(base) if read_or(base + name + "/vendor") == "0x10de"]
        MEMO["nvidia devices"] = {name: read_or(base + name + "/class")[:6] for name in own}
    return dict(MEMO["nvidia devices"])


def pci_gpus() -> list[str]:
    """PCI addresses of NVIDIA's display (0x0300) and 3D (0x0302) controllers."""
    return [name for name, kind in nvidia_devices().items() if kind in ("0x0300", "0x0302")]


def nvswitches() -> list[str]:
    """PCI addresses of NVSwitches: bridges of class 0x0680 of NVIDIA's."""
    return [name for name, kind in nvidia_devices().items() if kind == "0x0680"]


@section
def fact_pci(ask: Ask) -> dict[str, Any]:
    """Source: /sys/bus/pci/devices, /sys/kernel/iommu_groups, /proc/cmdline. ACS registers: root alone reads them."""
    base = at("/sys/bus/pci/devices/")
    cards: list[dict[str, Any]] = []
    above: list[str] = []
    for name in pci_gpus():
        folder = os.path.realpath(base + name)
        parts = [part for part in folder.split("/")[:-1] if is_address(part)]
        above += parts
        cards.append(
            {
                "address": name,
                "driver": os.path.basename(link_target(folder + "/driver")),
                "link": pci_link(folder),
                "port": pci_link(os.path.dirname(folder)) if parts else pci_link(""),
                "bridges": parts,
                "iommu": read_or(folder + "/iommu_group/type") or None,
            }
        )
    begins = {card["bridges"][0] for card in cards if card["bridges"]}
    bridges = [pci_bridge(base, name, name in begins) for name in unique(above)]
    return {
        "gpus": cards,
        "bridges": [bridge for bridge, _ in bridges],
        "nvswitches": nvswitches(),
        "registers": bool(bridges) and all(whole for _, whole in bridges),
        "iommu_groups": len(entries(at("/sys/kernel/iommu_groups"))),
        "kernel_parameters": [word for word in read_or(at("/proc/cmdline")).split() if is_bus_parameter(word)],
    }


def is_address(name: str) -> bool:
    """Whether a folder of /sys is a PCI device's: 0000:3b:00.0."""
    device, _, function = name.lower().rpartition(".")
    domain, *rest = device.split(":")
    hexadecimal = all(c in "0123456789abcdef" for c in domain + "".join(rest))
    whole = 4 <= len(domain) <= 8 and [len(part) for part in rest] == [2, 2]
    return hexadecimal and whole and function in tuple("01234567")


def is_bus_parameter(word: str) -> bool:
    """Whether a parameter of the kernel's is about the IOMMU, PCI, NVIDIA's modules, or modules that are not loaded."""
    name, equals, _ = word.partition("=")
    if name in ("iommu", "intel_iommu", "amd_iommu", "pci"):
        return bool(equals)
    of_module = "." in name and name.startswith(("nvidia", "nouveau."))
    return bool(equals) and (of_module or name.startswith("pcie_") or name.endswith("blacklist"))


def pci_link(folder: str) -> dict[str, Any]:
    """Width and speed of the link of a PCI device, now and at most; "Unknown", 0 and 255 are None."""

    def width(text: str) -> int | None:
        value = number(text)
        return value if value and value < 255 else None

    def speed(text: str) -> float | None:
        value, unit, _ = text.partition(" GT/s")
        return float(value) if unit and value.replace(".", "", 1).isdigit() else None

    return {
        "width": width(read_or(folder + "/current_link_width")),
        "width_max": width(read_or(folder + "/max_link_width")),
        "speed_gts": speed(read_or(folder + "/current_link_speed")),
        "speed_max_gts": speed(read_or(folder + "/max_link_speed")),
    }


def pci_bridge(base: str, name: str, root_port: bool) -> tuple[dict[str, Any], bool]:
    """A bridge with its ACS control register, and whether its registers could be read beyond the first 64 bytes.

    The extended capabilities begin at 0x100, each with its number in the low 16 bits and the place of the next in the
    high 12; ACS is number 0x0d, its control register 6 bytes on. Source: PCI Express Base Specification, 7.6.3, 7.7.8.
    """
    try:
        raw = read(base + name + "/config", 4096).encode("utf-8", "surrogateescape")
    except (OSError, ValueError):
        raw = b""
    acs, place = None, 0x100
    for _ in range(64):
        if not 0x100 <= place <= len(raw) - 8:
            break
        (head,) = struct.unpack_from("<I", raw, place)
        if head & 0xFFFF == 0x0D:
            (acs,) = struct.unpack_from("<H", raw, place + 6)
            break
        place = head >> 20
    return {"address": name, "acs": acs, "root_port": root_port}, len(raw) > 0x100
