"""Packages that bring compiled operations: bitsandbytes, DeepSpeed."""

from __future__ import annotations

from .constants import mappings
from .files import entries, read_or
from .packages import distributions, package_folder
from .question import Ask, section

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


@section
def fact_bitsandbytes(ask: Ask) -> dict[str, Any]:
    """Source: the distributions, and the names of the native libraries in the package's folder."""
    path = package_folder("bitsandbytes")
    if path is None:
        return {"version": None}
    version = next((item["version"] for item in distributions() if item["name"] == "bitsandbytes"), None)
    libraries = [name for name in entries(path) if name.startswith("libbitsandbytes") and ".so" in name]
    return {"version": version or "unknown", "path": path, "libraries": libraries}


@section
def fact_deepspeed(ask: Ask) -> dict[str, Any]:
    """Source: the distributions, and git_version_info_installed.py, which DeepSpeed's setup.py writes."""
    path = package_folder("deepspeed")
    if path is None:
        return {"version": None}
    version = next((item["version"] for item in distributions() if item["name"] == "deepspeed"), None)
    values = mappings(read_or(path + "/git_version_info_installed.py"))
    built = values.get("torch_info", {})
    return {
        "version": version or "unknown",
        "path": path,
        "installed_ops": sorted(str(name) for name, there in values.get("installed_ops", {}).items() if there is True),
        "built_torch": built.get("version"),
        "built_cuda": built.get("cuda_version"),
    }
