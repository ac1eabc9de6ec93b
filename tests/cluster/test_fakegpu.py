"""The stand-in for NVML, read by the real nvidia-ml-py and by ctypes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.fakegpu import PROFILES, read_profile
from tests.cluster.host import ClusterHost
from tests.cluster.little_cluster import LittleCluster

# Asks what a doctor asks, through unmodified nvidia-ml-py; what NVML refuses becomes the error's class.
ASK = """
import json, pynvml as n

def ask(function, *arguments):
    try:
        return function(*arguments)
    except n.NVMLError as error:
        return type(error).__name__

answers = {"init": ask(n.nvmlInit)}
if answers["init"] is None:
    answers["versions"] = [n.nvmlSystemGetDriverVersion(), n.nvmlSystemGetCudaDriverVersion_v2()]
    handles = [ask(n.nvmlDeviceGetHandleByIndex, i) for i in range(n.nvmlDeviceGetCount())]
    answers["gpus"] = [
        handle if isinstance(handle, str) else {
            "name": n.nvmlDeviceGetName(handle),
            "uuid": n.nvmlDeviceGetUUID(handle),
            "bus": n.nvmlDeviceGetPciInfo(handle).busId,
            "pci": hex(n.nvmlDeviceGetPciInfo(handle).pciDeviceId),
            "memory_mib": n.nvmlDeviceGetMemoryInfo(handle).total >> 20,
            "used_mib": n.nvmlDeviceGetMemoryInfo(handle, version=n.nvmlMemory_v2).used >> 20,
            "compute": n.nvmlDeviceGetCudaComputeCapability(handle),
            "ecc": ask(n.nvmlDeviceGetEccMode, handle),
            "ecc_uncorrected": ask(n.nvmlDeviceGetTotalEccErrors, handle, 1, 1),
            "remapped": ask(n.nvmlDeviceGetRemappedRows, handle),
            "retired": ask(n.nvmlDeviceGetRetiredPages, handle, 1),
            "mig": ask(n.nvmlDeviceGetMigMode, handle),
            "pcie": [n.nvmlDeviceGetCurrPcieLinkGeneration(handle), n.nvmlDeviceGetMaxPcieLinkGeneration(handle),
                     n.nvmlDeviceGetCurrPcieLinkWidth(handle), n.nvmlDeviceGetMaxPcieLinkWidth(handle)],
            "throttle": n.nvmlDeviceGetCurrentClocksThrottleReasons(handle),
            "power_limit": n.nvmlDeviceGetEnforcedPowerLimit(handle),
            "nvlinks": [ask(n.nvmlDeviceGetNvLinkState, handle, link) for link in (0, 3, 35)],
            "processes": [[p.pid, p.usedGpuMemory >> 20] for p in n.nvmlDeviceGetComputeRunningProcesses(handle)],
            "p2p": [ask(n.nvmlDeviceGetP2PStatus, handle, other, 0) for other in handles],
            "topology": [ask(n.nvmlDeviceGetTopologyCommonAncestor, handle, other) for other in handles],
            "name_again": ask(n.nvmlDeviceGetName, handle),
        }
        for handle in handles
    ]
    n.nvmlShutdown()
print(json.dumps(answers))
"""


def ask_host(host: ClusterHost) -> dict[str, Any]:
    answers: dict[str, Any] = json.loads(host.python(ASK).stdout)
    return answers


def ask_here(folder: Path, config: Path) -> tuple[dict[str, Any], str]:
    """Asks in a process of this machine that finds the library through LD_LIBRARY_PATH."""
    environment = {**os.environ, "LD_LIBRARY_PATH": str(folder), "DSDOCTOR_FAKE_NVML": str(config)}
    done = subprocess.run([sys.executable, "-c", ASK], env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout), done.stderr


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "fake.conf"


def test_a100_and_v100_in_two_hosts_at_once(restored: LittleCluster, fake_nvml: Path) -> None:
    node0, node1 = restored.hosts
    node0.install_fake_gpus("a100")
    node1.install_fake_gpus("v100")
    first, second = ask_host(node0), ask_host(node1)
    assert first["versions"] == second["versions"] == ["535.154.05", 12020]
    assert [(g["name"], g["memory_mib"], g["compute"]) for g in first["gpus"]] == [
        ("NVIDIA A100-PCIE-40GB", 40960, [8, 0])
    ] * 2
    assert [(g["name"], g["memory_mib"], g["compute"]) for g in second["gpus"]] == [
        ("Tesla V100-PCIE-32GB", 32768, [7, 0])
    ] * 2
    assert first["gpus"][0]["mig"] == [0, 0]
    assert second["gpus"][0]["mig"] == "NVMLError_NotSupported"
    assert first["gpus"][0]["uuid"] != first["gpus"][1]["uuid"]
    assert first["gpus"][0]["p2p"] == [0, 0]
    assert first["gpus"][1]["topology"] == [50, "NVMLError_InvalidArgument"]


def test_the_drivers_own_traces(restored: LittleCluster, fake_nvml: Path) -> None:
    node0, node1 = restored.hosts
    node0.install_fake_gpus("a100")
    assert "Kernel Module  535.154.05" in node0.read("/proc/driver/nvidia/version")
    assert node0.read("/sys/bus/pci/devices/0000:17:00.0/vendor") == "0x10de\n"
    assert node0.exists("/sys/module/nvidia_uvm")
    assert node0.run(["dkms", "status"]).stdout.startswith("nvidia/535.154.05, ")
    bus = ask_host(node0)["gpus"][1]["bus"]
    assert node0.exists(f"/sys/bus/pci/devices/{bus.removeprefix('0000').lower()}")
    assert not node1.exists("/proc/driver/nvidia")
    assert not Path("/proc/driver/nvidia").exists()


def test_removed_gpus_leave_nothing(restored: LittleCluster, fake_nvml: Path) -> None:
    node0 = restored["node0"]
    node0.install_fake_gpus("a100")
    node0.install_fake_gpus("not-loaded")  # takes the place of the first
    assert not node0.exists("/proc/driver/nvidia/version")
    node0.remove_fake_gpus()
    node0.remove_fake_gpus()  # a second time does nothing
    assert ask_host(node0) == {"init": "NVMLError_LibraryNotFound"}
    found = node0.run(["find", "/usr/src", "/usr/sbin", "/sys/module", "/sys/bus/pci/", "-name", "*nvidia*"]).stdout
    assert found == ""


def test_no_library_on_a_host_without_gpus(two_hosts: LittleCluster) -> None:
    assert ask_host(two_hosts.head) == {"init": "NVMLError_LibraryNotFound"}


@pytest.mark.parametrize(
    ("profile", "error"), [("not-loaded", "NVMLError_DriverNotLoaded"), ("mismatch", "NVMLError_LibRmVersionMismatch")]
)
def test_nvml_that_does_not_start(restored: LittleCluster, fake_nvml: Path, profile: str, error: str) -> None:
    node1 = restored["node1"]
    node1.install_fake_gpus(profile)
    assert ask_host(node1) == {"init": error}
    assert node1.exists("/proc/driver/nvidia/version") == (profile == "mismatch")
    assert node1.exists("/sys/bus/pci/devices/0000:37:00.0/class")


def test_rtx4090_has_no_peer_to_peer(fake_nvml: Path, config: Path) -> None:
    config.write_text(read_profile("rtx4090").text)
    gpus = ask_here(fake_nvml, config)[0]["gpus"]
    assert [gpu["p2p"] for gpu in gpus] == [[0, 1], [1, 0]]
    assert gpus[0]["ecc"] == [0, 0]
    assert gpus[0]["ecc_uncorrected"] == "NVMLError_NotSupported"
    assert gpus[0]["nvlinks"] == ["NVMLError_NotSupported"] * 3
    assert gpus[0]["pci"] == "0x268410de"


def test_a_gpu_can_be_ill(fake_nvml: Path, config: Path) -> None:
    more = {
        0: [
            *["process 4242 30500", "process 4243 12", "used_mib 30512", "ecc_uncorrected 3", "remapped 2"],
            *["generation 1", "width 8", "throttle 0x40", "nvlinks_up 4", "error nvmlDeviceGetMigMode 999"],
        ],
        1: ["lost 1"],
    }
    config.write_text(read_profile("a100", more).text)
    ill, lost = ask_here(fake_nvml, config)[0]["gpus"]
    assert ill["processes"] == [[4242, 30500], [4243, 12]]
    assert ill["used_mib"] == 30512
    assert ill["ecc_uncorrected"] == 3
    assert ill["remapped"] == [0, 2, 0, 0]
    assert ill["retired"] == "NVMLError_NotSupported"
    assert ill["pcie"] == [1, 4, 8, 16]
    assert ill["throttle"] == 0x40
    assert ill["nvlinks"] == [1, 1, "NVMLError_InvalidArgument"]
    assert ill["mig"] == "NVMLError_Unknown"
    assert lost == "NVMLError_GpuIsLost"


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_is_understood(fake_nvml: Path, config: Path, name: str) -> None:
    config.write_text(read_profile(name).text)
    answers, said = ask_here(fake_nvml, config)
    assert said == ""
    assert answers["init"] != "NVMLError_Unknown"
    assert len(read_profile(name).cards) == 2


@pytest.mark.parametrize("line", ["colour green", "memory_mib lots", "memory_mib", f"uuid {'x' * 200}"])
def test_a_line_that_is_not_understood_is_loud(fake_nvml: Path, config: Path, line: str) -> None:
    config.write_text(f"driver 1\ngpu Card\n{line}\n")
    answers, said = ask_here(fake_nvml, config)
    assert answers == {"init": "NVMLError_Unknown"}
    assert f"{config}:3: not understood: {line.split()[0]}" in said


def test_a_profile_line_for_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(IndexError):
        read_profile("a100", {2: ["lost 1"]})


def test_through_ctypes_without_nvidia_ml_py(fake_nvml: Path, config: Path) -> None:
    config.write_text(read_profile("v100").text)
    code = """
import ctypes
n = ctypes.CDLL("libnvidia-ml.so.1")
count, name, handle = ctypes.c_uint(), ctypes.create_string_buffer(64), ctypes.c_void_p()
print(n.nvmlDeviceGetCount_v2(ctypes.byref(count)), n.nvmlInit_v2(), n.nvmlDeviceGetCount_v2(ctypes.byref(count)))
print(count.value, n.nvmlDeviceGetHandleByIndex_v2(1, ctypes.byref(handle)))
print(n.nvmlDeviceGetName(handle, name, 4), n.nvmlDeviceGetName(handle, name, 64), name.value.decode())
print(n.nvmlDeviceGetName(None, name, 64), n.nvmlShutdown(), n.nvmlShutdown())
"""
    environment = {"LD_LIBRARY_PATH": str(fake_nvml), "DSDOCTOR_FAKE_NVML": str(config)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["1 0 0", "2 0", "7 0 Tesla V100-PCIE-32GB", "2 0 1"]
