"""The GPUs, as NVML has them."""

from __future__ import annotations

import os

from .accounts import user_name
from .files import at, read_or
from .nvml import NVML_STATUS, RECOVERY_ACTION, CtypesNvml, NvmlError, attempt
from .processes import process_age
from .pynvml_binding import PynvmlNvml

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

NVLINKS = 36  # NVML_NVLINK_MAX_LINKS of nvml.h 13; older drivers answer "invalid argument" beyond their own number
# Field of Gpu: NVML query with its further arguments, and what is made of the number.
GPU_NUMBERS: tuple[tuple[str, str, tuple[int, ...], Callable[[int], Any]], ...] = (
    ("pcie_generation", "nvmlDeviceGetCurrPcieLinkGeneration", (), int),
    ("pcie_generation_max", "nvmlDeviceGetMaxPcieLinkGeneration", (), int),
    ("pcie_generation_card", "nvmlDeviceGetGpuMaxPcieLinkGeneration", (), int),
    ("pcie_width", "nvmlDeviceGetCurrPcieLinkWidth", (), int),
    ("pcie_width_max", "nvmlDeviceGetMaxPcieLinkWidth", (), int),
    ("brand", "nvmlDeviceGetBrand", (), int),
    ("ecc_uncorrected", "nvmlDeviceGetTotalEccErrors", (1, 1), int),  # uncorrected, over the card's life
    ("ecc_uncorrected_now", "nvmlDeviceGetTotalEccErrors", (1, 0), int),  # uncorrected, since the driver was loaded
    ("page_retirement_pending", "nvmlDeviceGetRetiredPagesPendingStatus", (), bool),
    ("temperature_c", "nvmlDeviceGetTemperature", (0,), int),
    ("power_limit_w", "nvmlDeviceGetEnforcedPowerLimit", (), lambda milliwatt: milliwatt / 1000.0),
    ("power_limit_default_w", "nvmlDeviceGetPowerManagementDefaultLimit", (), lambda milliwatt: milliwatt / 1000.0),
    ("performance_state", "nvmlDeviceGetPerformanceState", (), lambda state: state if state < 16 else None),
    ("throttle_reasons", "nvmlDeviceGetCurrentClocksEventReasons", (), int),  # the name since driver 535
    ("throttle_reasons", "nvmlDeviceGetCurrentClocksThrottleReasons", (), int),
    ("compute_mode", "nvmlDeviceGetComputeMode", (), int),
    ("persistence", "nvmlDeviceGetPersistenceMode", (), bool),
    ("display", "nvmlDeviceGetDisplayActive", (), bool),
)


def learnt() -> dict[str, Any]:
    """The section, by pynvml if the host has it, else by ctypes."""
    for binding in (PynvmlNvml, CtypesNvml):
        try:
            nvml: Any = binding()
            nvml.start()
        except NvmlError as failure:
            if binding is PynvmlNvml and failure.code not in NVML_STATUS:
                continue  # perhaps the binding's fault: ask the library itself
            return {"status": NVML_STATUS.get(failure.code, "error"), "detail": str(failure), "via": nvml.via}
        except Exception:  # pynvml is missing, broken or not the module it should be
            continue
        try:
            return nvml_facts(nvml)
        finally:
            attempt(nvml.stop)
    return {"status": "error", "detail": "libnvidia-ml.so.1 could not be used", "via": "ctypes"}


def nvml_facts(nvml: Any) -> dict[str, Any]:
    """The section out of a started NVML."""
    cuda = attempt(nvml.integer, "nvmlSystemGetCudaDriverVersion")
    facts: dict[str, Any] = {
        "status": "ok",
        "via": nvml.via,
        "driver_version": attempt(nvml.text, "nvmlSystemGetDriverVersion"),
        "nvml_version": attempt(nvml.text, "nvmlSystemGetNVMLVersion"),
        "cuda_driver_version": "%d.%d" % (cuda // 1000, cuda % 1000 // 10) if cuda else None,
    }
    problem = ""
    try:
        count = nvml.integer("nvmlDeviceGetCount" if nvml.via == "pynvml" else "nvmlDeviceGetCount_v2")
    except NvmlError as failure:
        count, problem = 0, str(failure)
    if problem:
        return dict(facts, status="error", detail="counting the GPUs: " + problem)
    devices, gpus = [], []
    for index in range(count):
        try:
            device = nvml.device(index)
            gpus.append(nvml_gpu(nvml, index, device))
        except NvmlError as failure:
            device = None
            gpus.append({"index": index, "name": "", "error": str(failure)})
        devices.append(device if "error" not in gpus[-1] else None)
    facts["gpus"] = gpus
    facts["p2p_read"] = matrix(nvml, devices, "nvmlDeviceGetP2PStatus", (0,))  # NVML_P2P_CAPS_INDEX_READ
    facts["topology"] = matrix(nvml, devices, "nvmlDeviceGetTopologyCommonAncestor", ())
    return facts


def nvml_gpu(nvml: Any, index: int, device: Any) -> dict[str, Any]:
    """One GPU. Raises NvmlError when it does not even say its name."""
    memory = attempt(nvml.memory, device)
    ecc = attempt(nvml.pair, "nvmlDeviceGetEccMode", device)
    mig = attempt(nvml.pair, "nvmlDeviceGetMigMode", device)
    fabric = attempt(nvml.fabric, device)
    gpu = {
        "index": index,
        "name": nvml.text("nvmlDeviceGetName", device),
        "uuid": attempt(nvml.text, "nvmlDeviceGetUUID", device) or "",
        "memory_mib": memory[0] >> 20 if memory else None,
        "memory_used_mib": memory[1] >> 20 if memory else None,
        "memory_reserved_mib": memory[2] >> 20 if memory and memory[2] is not None else None,
        "compute_capability": attempt(nvml.pair, "nvmlDeviceGetCudaComputeCapability", device),
        "pci_bus_id": attempt(nvml.bus, device) or "",
        "ecc": bool(ecc[0]) if ecc else None,
        "mig": bool(mig[0]) if mig else None,
        "mig_devices": attempt(nvml.mig_devices, device) if mig and mig[0] else None,
        "recovery_action": attempt(nvml.field, device, RECOVERY_ACTION),
        "fabric_state": fabric[0] if fabric else None,
        "fabric_status": fabric[1] if fabric else None,
        "processes": [gpu_process(pid, used) for pid, used in attempt(nvml.processes, device) or ()],
    }
    gpu.update(nvlinks(nvml, device))
    gpu.update(mended_memory(nvml, device))
    for field, symbol, arguments, convert in GPU_NUMBERS:
        value = attempt(nvml.integer, symbol, device, *arguments)
        if gpu.get(field) is None:
            gpu[field] = None if value is None else convert(value)
    return gpu


def mended_memory(nvml: Any, device: Any) -> dict[str, Any]:
    """What the card did about broken memory: rows remapped (Ampere and newer) or pages retired (before)."""
    rows = attempt(nvml.numbers, "nvmlDeviceGetRemappedRows", 4, device)  # correctable, uncorrectable, pending, failed
    pages = [attempt(nvml.retired_pages, device, cause) for cause in (0, 1)]
    known = [count for count in pages if count is not None]
    return {
        "rows_remapped": rows[1] if rows else None,
        "row_remap_pending": bool(rows[2]) if rows else None,
        "row_remap_failed": bool(rows[3]) if rows else None,
        "pages_retired": sum(known) if known else None,
    }


def nvlinks(nvml: Any, device: Any) -> dict[str, int | None]:
    """How many NVLinks the card has, how many are up and how many of these lead to a switch; None without any."""
    states = []
    for link in range(NVLINKS):
        state = attempt(nvml.integer, "nvmlDeviceGetNvLinkState", device, link)
        if state is None:
            break
        states.append(state)
    up = [link for link, state in enumerate(states) if state == 1]
    far = [attempt(nvml.integer, "nvmlDeviceGetNvLinkRemoteDeviceType", device, link) for link in up]
    known = [kind for kind in far if kind is not None]
    return {
        "nvlinks": len(up) if states else None,
        "nvlinks_total": len(states) or None,
        "nvlinks_to_switch": known.count(2) if known else None,  # NVML_NVLINK_DEVICE_TYPE_SWITCH
    }


def matrix(nvml: Any, devices: list[Any], symbol: str, arguments: tuple[int, ...]) -> list[list[int | None]]:
    """What NVML says of each pair of GPUs; None on the diagonal and where it has no answer."""
    return [
        [
            None
            if one is other or one is None or other is None
            else attempt(nvml.integer, symbol, one, other, *arguments)
            for other in devices
        ]
        for one in devices
    ]


def gpu_process(pid: int, used: int | None) -> dict[str, Any]:
    """A process on a GPU with its program's name, its script's, and its user; arguments may hold secrets and stay."""
    folder = at("/proc/%d" % pid)
    name = read_or(folder + "/comm")
    words = read_or(folder + "/cmdline").split("\0")[1:] if name.startswith("python") else []
    script = next((os.path.basename(word) for word in words if word.endswith(".py")), "")
    try:
        user = user_name(os.stat(folder).st_uid)
    except OSError:
        user = ""  # another container's process
    command = ("%s %s" % (name, script)).strip()
    return {
        "pid": pid,
        "memory_mib": None if used is None else used >> 20,
        "command": command,
        "user": user,
        "age_seconds": process_age(folder),
    }
