"""GPUs on the PCI bus, and the bridges above them."""

from __future__ import annotations

import os
import re
import struct

from .files import at, entries, link_target, number, read, read_or, unique
from .question import Ask, section

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def pci_gpus() -> list[str]:
    """PCI addresses of NVIDIA's display (0x0300) and 3D (0x0302) controllers. Source: /sys/bus/pci/devices."""
    base = at("/sys/bus/pci/devices/")
    return [
        name
        for name in entries(base)
        if read_or(base + name + "/vendor") == "0x10de" and read_or(base + name + "/class")[:6] in ("0x0300", "0x0302")
    ]


def nvswitches() -> list[str]:
    """PCI addresses of NVSwitches: bridges of class 0x0680 of NVIDIA's. Source: /sys/bus/pci/devices."""
    base = at("/sys/bus/pci/devices/")
    return [
        name
        for name in entries(base)
        if read_or(base + name + "/vendor") == "0x10de" and read_or(base + name + "/class")[:6] == "0x0680"
    ]


PCI_ADDRESS = re.compile(r"^[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$", re.I)
BUS_PARAMETERS = re.compile(r"^(?:(?:intel_|amd_)?iommu|pci|pcie_\w+|nvidia[\w-]*\.\w+|nouveau\.\w+)=|^\w*blacklist=")


@section
def fact_pci(ask: Ask) -> dict[str, Any]:
    """Source: /sys/bus/pci/devices, /sys/kernel/iommu_groups, /proc/cmdline. ACS registers: root alone reads them."""
    base = at("/sys/bus/pci/devices/")
    cards: list[dict[str, Any]] = []
    above: list[str] = []
    for name in pci_gpus():
        folder = os.path.realpath(base + name)
        parts = [part for part in folder.split("/")[:-1] if PCI_ADDRESS.match(part)]
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
        "kernel_parameters": [word for word in read_or(at("/proc/cmdline")).split() if BUS_PARAMETERS.match(word)],
    }


def pci_link(folder: str) -> dict[str, Any]:
    """Width and speed of the link of a PCI device, now and at most; "Unknown", 0 and 255 are None."""

    def width(text: str) -> int | None:
        value = number(text)
        return value if value and value < 255 else None

    def speed(text: str) -> float | None:
        match = re.match(r"(\d+(?:\.\d+)?) GT/s", text)
        return float(match.group(1)) if match else None

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
