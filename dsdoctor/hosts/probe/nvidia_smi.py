"""GPUs as nvidia-smi tells them."""

from __future__ import annotations

from .files import ProbeError, number, which
from .programs import run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

SMI_FIELDS = (
    ("index", "index"),
    ("name", "name"),
    ("uuid", "uuid"),
    ("memory_mib", "memory.total"),
    ("memory_used_mib", "memory.used"),
    ("pci_bus_id", "pci.bus_id"),
    ("driver_version", "driver_version"),
    ("compute_capability", "compute_cap"),  # not before driver 510
)


def nvidia_smi(reason: str) -> dict[str, Any]:
    """The section out of `nvidia-smi --query-gpu`, for hosts on which the loader does not find the library."""
    program = which("nvidia-smi", ("/usr/bin", "/usr/lib/wsl/lib", "/opt/bin"))
    if program is None:
        return {"status": "no-library", "detail": reason}
    for fields in (SMI_FIELDS, SMI_FIELDS[:-1]):
        query = "--query-gpu=" + ",".join(field for _, field in fields)
        try:
            code, output, errors = run([program, query, "--format=csv,noheader,nounits"])
        except ProbeError as failure:
            return {"status": "error", "detail": str(failure), "via": "nvidia-smi"}
        if code == 0:
            gpus = [smi_gpu(line, fields) for line in output.splitlines() if line.count(",") >= len(fields) - 1]
            driver = gpus[0].pop("driver_version") if gpus else None
            for gpu in gpus[1:]:
                gpu.pop("driver_version")
            return {"status": "ok", "via": "nvidia-smi", "driver_version": driver, "gpus": gpus}
    said = " ".join((output + " " + errors).split())
    status = "error"
    if "communicate with the NVIDIA driver" in said:
        status = "driver-not-loaded"
    elif "version mismatch" in said:
        status = "library-mismatch"
    return {"status": status, "detail": said or reason, "via": "nvidia-smi"}


def smi_gpu(line: str, fields: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """A line of nvidia-smi's CSV as a GPU; "[N/A]" and the like are None."""
    gpu: dict[str, Any] = {"name": "", "driver_version": None}
    for (field, _), word in zip(fields, [word.strip() for word in line.split(",")]):
        if field == "compute_capability":
            parts = word.split(".")
            plain = len(parts) == 2 and all(part.isdigit() for part in parts)
            gpu[field] = [int(part) for part in parts] if plain else None
        elif field in ("index", "memory_mib", "memory_used_mib"):
            gpu[field] = number(word)
        else:
            gpu[field] = "" if word.startswith("[") else word
    return gpu
