"""The PCI bus above the GPUs, over trees laid out as sysfs has them: a folder stands for `/`."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

import pytest

from dsdoctor.hosts import probe
from tests.probe.conftest import lay

ASK = probe.question.Ask({})
ROOT_PORT, SWITCH_UP, SWITCH_DOWN, CARD = "0000:00:01.0", "0000:01:00.0", "0000:02:08.0", "0000:03:00.0"
GROUP = "sys/kernel/iommu_groups/7"


def config_space(acs: int | None, *, before: int = 2) -> bytes:
    """4096 bytes of registers: `before` other capabilities (AER), then ACS with this control register."""
    raw = bytearray(4096)
    place = 0x100
    for _ in range(before):
        struct.pack_into("<I", raw, place, 0x0001 | 1 << 16 | (place + 0x40) << 20)
        place += 0x40
    if acs is not None:
        struct.pack_into("<IHH", raw, place, 0x000D | 1 << 16, 0x5F, acs)
    return bytes(raw)


def plant(root: Path, chain: dict[str, dict[str, str | bytes]]) -> None:
    """A card below its bridges; the last of the chain is the card."""
    folder = "sys/devices/pci0000:00"
    (root / "sys/bus/pci/devices").mkdir(parents=True, exist_ok=True)
    for address, files in chain.items():
        folder += f"/{address}"
        lay(root, {f"{folder}/{name}": content for name, content in files.items()})
        (root / "sys/bus/pci/devices" / address).symlink_to(root / folder)
    lay(root, {f"{GROUP}/type": "DMA-FQ\n", f"{folder}/vendor": "0x10de\n", f"{folder}/class": "0x030200\n"})
    (root / folder / "iommu_group").symlink_to(root / GROUP)
    (root / folder / "driver").symlink_to("../../../bus/pci/drivers/nvidia")


def link(width: str, most: str, speed: str, fastest: str) -> dict[str, str | bytes]:
    names = ("current_link_width", "max_link_width", "current_link_speed", "max_link_speed")
    return dict(zip(names, (width, most, speed, fastest), strict=True))


CHAIN: dict[str, dict[str, str | bytes]] = {
    ROOT_PORT: {"config": config_space(0x1D)},
    SWITCH_UP: {"config": config_space(None)},
    SWITCH_DOWN: {"config": config_space(0x00, before=0), **link("4", "16", "2.5 GT/s PCIe", "16.0 GT/s PCIe")},
    CARD: link("4", "16", "2.5 GT/s PCIe", "32 GT/s"),
}


def test_a_card_behind_a_switch(root: Path) -> None:
    plant(root, CHAIN)
    lay(root, {"proc/cmdline": "BOOT_IMAGE=/vmlinuz root=UUID=x intel_iommu=on iommu=pt pci=noacs pass=secret quiet\n"})
    found = probe.pci.fact_pci(ASK)
    (card,) = found["gpus"]
    assert card["address"] == CARD
    assert card["driver"] == "nvidia"
    assert card["link"] == {"width": 4, "width_max": 16, "speed_gts": 2.5, "speed_max_gts": 32.0}
    assert card["port"] == {"width": 4, "width_max": 16, "speed_gts": 2.5, "speed_max_gts": 16.0}
    assert card["bridges"] == [ROOT_PORT, SWITCH_UP, SWITCH_DOWN]
    assert card["iommu"] == "DMA-FQ"
    assert found["bridges"] == [
        {"address": ROOT_PORT, "acs": 0x1D, "root_port": True},
        {"address": SWITCH_UP, "acs": None, "root_port": False},
        {"address": SWITCH_DOWN, "acs": 0, "root_port": False},
    ]
    assert found["registers"] is True
    assert found["iommu_groups"] == 1
    assert found["kernel_parameters"] == ["intel_iommu=on", "iommu=pt", "pci=noacs"]


def test_registers_that_only_root_may_read(root: Path) -> None:
    plant(root, {**CHAIN, ROOT_PORT: {"config": config_space(0x1D)[:64]}})
    found = probe.pci.fact_pci(ASK)
    assert found["registers"] is False
    assert found["bridges"][0] == {"address": ROOT_PORT, "acs": None, "root_port": True}


def loop() -> bytes:
    raw = bytearray(4096)
    struct.pack_into("<I", raw, 0x100, 0x0001 | 1 << 16 | 0x100 << 20)
    return bytes(raw)


@pytest.mark.parametrize("config", [b"", b"\xff" * 4096, loop(), struct.pack("<I", 0xFFF00001) * 1024])
def test_registers_that_make_no_sense_end(config: bytes, root: Path) -> None:
    plant(root, {**CHAIN, ROOT_PORT: {"config": config}})
    assert probe.pci.fact_pci(ASK)["bridges"][0]["acs"] is None


def test_a_card_on_no_bridge_and_without_an_iommu(root: Path) -> None:
    base = "sys/bus/pci/devices/0000:00:05.0"
    lay(root, {f"{base}/vendor": "0x10de\n", f"{base}/class": "0x030000\n", f"{base}/max_link_width": "255\n"})
    lay(root, {f"{base}/current_link_width": "0\n", f"{base}/max_link_speed": "Unknown\n"})
    found = probe.pci.fact_pci(ASK)
    nothing: dict[str, Any] = {"width": None, "width_max": None, "speed_gts": None, "speed_max_gts": None}
    card = {"address": "0000:00:05.0", "driver": "", "bridges": [], "iommu": None, "link": nothing, "port": nothing}
    assert found["gpus"] == [card]
    assert (found["bridges"], found["registers"], found["iommu_groups"]) == ([], False, 0)


def test_switches_of_nvlink_are_no_cards(root: Path) -> None:
    base = "sys/bus/pci/devices/0000:c1:00.0"
    lay(root, {f"{base}/vendor": "0x10de\n", f"{base}/class": "0x068000\n"})
    found = probe.pci.fact_pci(ASK)
    assert (found["gpus"], found["nvswitches"]) == ([], ["0000:c1:00.0"])


@pytest.mark.parametrize(("comm", "wanted"), [("nv-fabricmanage\n", True), ("nvidia-persiste\n", False)])
def test_the_fabric_manager_is_looked_for_where_switches_are(
    comm: str, wanted: bool, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe.processes, "own_namespaces", lambda: False)
    lay(root, {"proc/1/comm": "systemd\n", "proc/812/comm": comm, "proc/self/comm": comm})
    assert probe.driver.fact_driver(ASK)["fabric_manager_running"] is None
    base = "sys/bus/pci/devices/0000:c1:00.0"
    lay(root, {f"{base}/vendor": "0x10de\n", f"{base}/class": "0x068000\n"})
    probe.files.MEMO.clear()
    assert probe.driver.fact_driver(ASK)["fabric_manager_running"] is wanted
    monkeypatch.setattr(
        probe.processes, "own_namespaces", lambda: True
    )  # a container does not see its host's processes
    assert probe.driver.fact_driver(ASK)["fabric_manager_running"] is None


def test_other_users_processes_that_are_hidden(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe.processes, "own_namespaces", lambda: False)
    lay(root, {"proc/812/comm": "bash\n"})  # hidepid: number 1 is not shown
    assert probe.processes.running("nv-fabricmanager") is None


def test_the_version_of_the_library_is_in_its_files_name(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe.driver, "loader_cache", lambda library: [])
    folder = tmp_path / "lib"
    assert probe.driver.nvml_library_version() is None
    lay(folder, {"libnvidia-ml.so.550.54.15": ""})
    (folder / "libnvidia-ml.so.1").symlink_to("libnvidia-ml.so.550.54.15")
    monkeypatch.setenv("LD_LIBRARY_PATH", f"/nowhere:{folder}")
    assert probe.driver.nvml_library_version() == "550.54.15"
    (folder / "libnvidia-ml.so.1").unlink()
    lay(folder, {"libnvidia-ml.so.1": "no link"})
    assert probe.driver.nvml_library_version() is None


def test_the_age_of_a_process() -> None:
    age = probe.processes.process_age(f"/proc/{os.getpid()}")
    assert age is not None and 0 <= age < 36000
    assert probe.processes.process_age("/proc/none") is None
