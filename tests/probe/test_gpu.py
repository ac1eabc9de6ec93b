"""GPUs through NVML: pynvml and ctypes over the same stand-in library, nvidia-smi by its printed forms.

The stand-in answers what its text file says. It shows that NVML is read as its documentation has it; no real card or
driver has been asked here.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dsdoctor.hosts import probe
from tests.cluster.fakegpu import PROFILES, library_folder, missing_for_fake_gpus, read_profile
from tests.probe.conftest import examine, lay, value

NEEDS_GCC = pytest.mark.skipif(bool(missing_for_fake_gpus()), reason=missing_for_fake_gpus())
BINDINGS = {"pynvml": [sys.executable], "ctypes": [sys.executable, "-S"]}  # -S: no site-packages, so no pynvml


def ask(binding: str, text: str, tmp_path: Path, **environment: str) -> dict[str, Any]:
    config = tmp_path / "nvml.conf"
    config.write_text(text)
    variables = {"LD_LIBRARY_PATH": str(library_folder()), "DSDOCTOR_FAKE_NVML": str(config), **environment}
    answer = examine({"sections": ["gpu"]}, python=BINDINGS[binding], env=variables)
    found: dict[str, Any] = value(answer, "gpu")
    assert found["via"] == binding
    return found


@NEEDS_GCC
@pytest.mark.parametrize("profile", PROFILES)
def test_both_bindings_give_the_same_answers(profile: str, tmp_path: Path) -> None:
    text = read_profile(profile).text
    first, second = (ask(binding, text, tmp_path) for binding in BINDINGS)
    assert {**first, "via": ""} == {**second, "via": ""}


@NEEDS_GCC
@pytest.mark.parametrize("binding", BINDINGS)
def test_two_a100(binding: str, tmp_path: Path) -> None:
    found = ask(binding, read_profile("a100").text, tmp_path)
    assert (found["status"], found["driver_version"], found["cuda_driver_version"]) == ("ok", "535.154.05", "12.2")
    first, second = found["gpus"]
    assert (first["name"], first["memory_mib"], first["compute_capability"]) == ("NVIDIA A100-PCIE-40GB", 40960, [8, 0])
    assert (first["ecc"], first["mig"], first["nvlinks"], first["power_limit_w"]) == (True, False, 0, 250.0)
    assert first["uuid"] != second["uuid"] and second["pci_bus_id"] == "00000000:37:00.0"
    assert found["p2p_read"] == [[None, 0], [0, None]]
    assert found["topology"] == [[None, 50], [50, None]]


@NEEDS_GCC
@pytest.mark.parametrize("binding", BINDINGS)
def test_two_rtx4090_without_peer_to_peer(binding: str, tmp_path: Path) -> None:
    found = ask(binding, read_profile("rtx4090").text, tmp_path)
    assert found["p2p_read"] == [[None, 1], [1, None]]
    assert found["gpus"][0]["nvlinks"] is None
    assert found["gpus"][0]["mig"] is None


@NEEDS_GCC
@pytest.mark.parametrize("binding", BINDINGS)
def test_a_sick_card_beside_a_healthy_one(binding: str, tmp_path: Path) -> None:
    pid = os.getpid()
    more = {0: ["lost 1"], 1: ["used_mib 31000", f"process {pid} 30500", "throttle 0x40", "generation 1", "width 8"]}
    found = ask(binding, read_profile("v100", more).text, tmp_path)
    lost, busy = found["gpus"]
    assert found["status"] == "ok"
    assert (lost["index"], lost["name"], lost["error"]) == (0, "", "GPU is lost")
    assert "error" not in busy and busy["throttle_reasons"] == 0x40
    assert (busy["pcie_generation"], busy["pcie_generation_max"], busy["pcie_width"]) == (1, 3, 8)
    (process,) = busy["processes"]
    assert (process["pid"], process["memory_mib"]) == (pid, 30500)
    assert process["command"].split()[0] == Path("/proc/self/comm").read_text().strip()
    assert process["user"] == probe.accounts.user_name(os.getuid())
    assert found["p2p_read"] == found["topology"] == [[None, None], [None, None]]


# Of the stand-in's file -> of the facts. The codes are nvml.h's: brand 5 is GeForce, fabric state 2 "in progress".
TOLD = {
    "brand 5": {"brand": 5},
    "generation_card 5": {"pcie_generation_card": 5, "pcie_generation_max": 4},
    "reserved_mib 600": {"memory_reserved_mib": 600, "memory_used_mib": 0},
    "ecc_volatile_uncorrected 3": {"ecc_uncorrected_now": 3, "ecc_uncorrected": 0},
    "remapped 2": {"rows_remapped": 2, "row_remap_pending": False, "row_remap_failed": False},
    "remap_pending 1": {"row_remap_pending": True},
    "remap_failed 1": {"row_remap_failed": True},
    "retired_pages 7": {"pages_retired": 7, "page_retirement_pending": False},
    "retirement_pending 1": {"page_retirement_pending": None},  # an A100 has rows to remap and no pages to retire
    "power_default_mw 400000": {"power_limit_default_w": 400.0, "power_limit_w": 250.0},
    "pstate 8": {"performance_state": 8},
    "display 1": {"display": True},
    "compute_mode 2": {"compute_mode": 2},
    "nvlinks_up 4": {"nvlinks": 4, "nvlinks_total": 12, "nvlinks_to_switch": 0},
    "fabric_state 2": {"fabric_state": 2, "fabric_status": 0, "recovery_action": None},
    "recovery_action 2": {"recovery_action": 2},
}


@NEEDS_GCC
@pytest.mark.parametrize("binding", BINDINGS)
def test_what_a_preflight_asks_of_a_card(binding: str, tmp_path: Path) -> None:
    profile = read_profile("a100").text.split("\ngpu ")
    text = "\n".join([profile[0], *(f"gpu {profile[1]}\n{line}\n" for line in TOLD)])
    gpus = ask(binding, text, tmp_path)["gpus"]
    for (line, wanted), gpu in zip(TOLD.items(), gpus, strict=True):
        assert {name: gpu[name] for name in wanted} == wanted, line


@NEEDS_GCC
@pytest.mark.parametrize("binding", BINDINGS)
def test_a_divided_card_and_one_on_a_switch(binding: str, tmp_path: Path) -> None:
    lines = {0: ["mig 1", "mig_instances 3"], 1: ["nvlinks_up 12", "nvlinks_to_switch 1", "fabric_state 3"]}
    divided, switched = ask(
        binding, read_profile("a100", {**lines, 1: [*lines[1], "fabric_status 15"]}).text, tmp_path
    )["gpus"]
    assert (divided["mig"], divided["mig_devices"], divided["rows_remapped"]) == (True, 3, None)
    assert (switched["mig"], switched["mig_devices"], switched["nvlinks_to_switch"]) == (False, None, 12)
    assert (switched["fabric_state"], switched["fabric_status"]) == (3, 15)


# What came with a driver, and what the older name for it still tells. Source: the changelog in the NVML reference.
LACKING = {
    "nvmlDeviceGetMemoryInfo_v2": {"memory_used_mib": 564, "memory_reserved_mib": None, "memory_mib": 40960},
    "nvmlDeviceGetGpuFabricInfoV": {"fabric_state": 1, "fabric_status": 0},
    "nvmlDeviceGetCurrentClocksEventReasons": {"throttle_reasons": 1},
    "nvmlDeviceGetCurrentClocksThrottleReasons": {"throttle_reasons": 1},
    "nvmlDeviceGetGpuMaxPcieLinkGeneration": {"pcie_generation_card": None, "pcie_generation_max": 4},
    "nvmlDeviceGetRemappedRows": {"rows_remapped": None, "row_remap_pending": None, "row_remap_failed": None},
    "nvmlDeviceGetNvLinkRemoteDeviceType": {"nvlinks": 2, "nvlinks_total": 12, "nvlinks_to_switch": None},
    "nvmlDeviceGetNvLinkState": {"nvlinks": None, "nvlinks_total": None, "nvlinks_to_switch": None},
    "nvmlDeviceGetBrand": {"brand": None},
    "nvmlDeviceGetFieldValues": {"recovery_action": None},
    "nvmlDeviceGetMigMode": {"mig": None, "mig_devices": None},
    "nvmlDeviceGetComputeRunningProcesses_v3": {"processes": []},
}


@NEEDS_GCC
@pytest.mark.parametrize("binding", BINDINGS)
def test_a_function_that_a_driver_lacks_costs_its_own_answer(binding: str, tmp_path: Path) -> None:
    profile = read_profile("a100").text.split("\ngpu ")
    more = "nvlinks_up 2\nfabric_state 1\nrecovery_action 0"
    text = "\n".join([profile[0], *(f"gpu {profile[1]}\n{more}\nlacks {name}\n" for name in LACKING)])
    gpus = ask(binding, text, tmp_path)["gpus"]
    whole = ask(binding, f"{profile[0]}\ngpu {profile[1]}\n{more}\n", tmp_path)["gpus"][0]
    for (name, wanted), gpu in zip(LACKING.items(), gpus, strict=True):
        expected = {**whole, **{key: gpu[key] for key in ("index", "uuid", "pci_bus_id")}, **wanted}
        assert gpu == expected, name


@NEEDS_GCC
@pytest.mark.parametrize("binding", BINDINGS)
@pytest.mark.parametrize(
    ("profile", "status", "detail"),
    [
        ("not-loaded", "driver-not-loaded", "Driver Not Loaded"),
        ("mismatch", "library-mismatch", "Driver/library version mismatch"),
    ],
)
def test_nvml_that_does_not_start(binding: str, profile: str, status: str, detail: str, tmp_path: Path) -> None:
    found = ask(binding, read_profile(profile).text, tmp_path)
    assert found == {"status": status, "detail": detail, "via": binding}


def compiled(folder: Path, code: str) -> dict[str | bytes, str | bytes]:
    """The variables under which a library of this code is the host's NVML."""
    flags = ["-shared", "-fPIC", "-w", "-Wl,-soname,libnvidia-ml.so.1"]
    argv = ["gcc", *flags, "-x", "c", "-", "-o", str(folder / "libnvidia-ml.so.1")]
    subprocess.run(argv, input=code.encode(), check=True)
    return {"LD_LIBRARY_PATH": str(folder)}


OLD = """
#include <string.h>
int nvmlInit_v2(void) { return 0; }
int nvmlShutdown(void) { return 0; }
int nvmlDeviceGetCount_v2(unsigned *n) { *n = 1; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned i, void **d) { *d = (void *)1; return 0; }
int nvmlDeviceGetName(void *d, char *s, unsigned n) { strcpy(s, "Tesla K80"); return 0; }
const char *nvmlErrorString(int r) { return "?"; }
"""


@NEEDS_GCC
@pytest.mark.parametrize(
    ("binding", "start", "via"),
    [
        ("ctypes", "nvmlInit_v2(void)", "ctypes"),
        ("pynvml", "nvmlInitWithFlags(unsigned f)", "pynvml"),
        ("pynvml", "nvmlInit_v2(void)", "ctypes"),  # this pynvml cannot start so old a driver; the library can
    ],
)
def test_a_driver_too_old_for_most_questions(binding: str, start: str, via: str, tmp_path: Path) -> None:
    environment = compiled(tmp_path, OLD.replace("nvmlInit_v2(void)", start))
    found = value(examine({"sections": ["gpu"]}, python=BINDINGS[binding], env=environment), "gpu")
    assert (found["status"], found["via"], found["driver_version"]) == ("ok", via, None)
    (gpu,) = found["gpus"]
    assert gpu.pop("name") == "Tesla K80" and gpu.pop("index") == 0
    assert gpu.pop("processes") == [] and gpu.pop("uuid") == gpu.pop("pci_bus_id") == ""
    assert set(gpu.values()) == {None}


@NEEDS_GCC
@pytest.mark.parametrize(
    "module",
    [
        "raise SyntaxError('a Python 2 file')",
        "import warnings; warnings.warn('pynvml is deprecated', FutureWarning, stacklevel=2); from _real import *",
        "class NVMLError(Exception): pass\ndef nvmlInit(): raise NVMLError('nonsense')\n",
        "def nvmlInit(): raise TypeError('another module of that name')\n",
        "import os; os.write(1, b'noise'); raise ImportError",
    ],
)
def test_a_pynvml_of_another_kind_is_passed_over(module: str, tmp_path: Path) -> None:
    lay(tmp_path, {"pynvml.py": module, "nvml.conf": read_profile("a100").text})
    environment = {"LD_LIBRARY_PATH": str(library_folder()), "DSDOCTOR_FAKE_NVML": str(tmp_path / "nvml.conf")}
    found = value(examine({"sections": ["gpu"]}, env={"PYTHONPATH": str(tmp_path), **environment}), "gpu")
    assert (found["status"], found["via"], len(found["gpus"])) == ("ok", "ctypes", 2)


def smi(folder: Path, text: str) -> dict[str | bytes, str | bytes]:
    lay(folder, {"nvidia-smi": f"#!/bin/sh\n{text}\n"})
    (folder / "nvidia-smi").chmod(0o755)
    return {"PATH": f"{folder}:/usr/bin:/bin", "LD_LIBRARY_PATH": ""}


@pytest.fixture
def no_library() -> None:
    if not os.system("ldconfig -p 2>/dev/null | grep -q libnvidia-ml.so.1"):
        pytest.skip("this machine has an NVML of its own")


LINE = (
    "0, NVIDIA GeForce RTX 3080, GPU-aaaaaaaa-0000-0000-0000-000000000000, 20470, 11, 00000000:01:00.0, 535.54.03, 8.6"
)


@pytest.mark.usefixtures("no_library")
@pytest.mark.parametrize(
    ("script", "wanted"),
    [
        ("exit 9", {"status": "error"}),
        (
            'echo "NVIDIA-SMI has failed because it couldn\'t communicate with the NVIDIA driver."; exit 9',
            {"status": "driver-not-loaded"},
        ),
        ("echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18", {"status": "library-mismatch"}),
        (f"echo '{LINE}'", {"status": "ok", "driver_version": "535.54.03"}),
        ("sleep 60", {"status": "error", "detail": "nvidia-smi did not end within its time limit"}),
    ],
)
def test_nvidia_smi_where_there_is_no_library(
    script: str, wanted: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = smi(tmp_path, script)
    monkeypatch.setenv("PATH", str(environment["PATH"]))
    monkeypatch.setitem(probe.programs.PATIENCE, "program", 0.5)
    monkeypatch.setattr(probe.programs, "HANGING", set())
    found = probe.nvidia_smi.nvidia_smi("libnvidia-ml.so.1: cannot open shared object file")
    assert found["via"] == "nvidia-smi"
    assert {name: str(found[name]).replace(f"{tmp_path}/", "") for name in wanted} == wanted


@pytest.mark.usefixtures("no_library")
def test_an_older_nvidia_smi_without_compute_cap(tmp_path: Path) -> None:
    old = LINE.rpartition(",")[0]
    text = f"case $1 in *compute_cap*) echo 'Field \"compute_cap\" is not valid'; exit 2;; esac; echo '{old}'"
    found = value(examine({"sections": ["gpu"]}, env=smi(tmp_path, text)), "gpu")
    assert found["driver_version"] == "535.54.03"
    assert found["gpus"] == [
        {
            "index": 0,
            "name": "NVIDIA GeForce RTX 3080",
            "uuid": "GPU-aaaaaaaa-0000-0000-0000-000000000000",
            "memory_mib": 20470,
            "memory_used_mib": 11,
            "pci_bus_id": "00000000:01:00.0",
        }
    ]


@pytest.mark.usefixtures("no_library")
def test_no_library_and_no_program() -> None:
    found = value(examine({"sections": ["gpu"]}, env={"PATH": "/nowhere"}), "gpu")
    assert found["status"] == "no-library" and "libnvidia-ml.so.1" in found["detail"]


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        (LINE, ([8, 6], 20470)),
        (LINE.replace("8.6", "[N/A]"), (None, 20470)),
        (LINE.replace("20470", "[Not Supported]"), ([8, 6], None)),
    ],
)
def test_a_line_of_nvidia_smi(line: str, wanted: tuple[Any, Any]) -> None:
    gpu = probe.nvidia_smi.smi_gpu(line, probe.nvidia_smi.SMI_FIELDS)
    assert (gpu["compute_capability"], gpu["memory_mib"]) == wanted
