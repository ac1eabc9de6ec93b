"""How the installed torch was built."""

from __future__ import annotations

from .constants import constants
from .elf import Library
from .files import read_or
from .packages import distributions, package_folder
from .question import Ask, section

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any


@section
def fact_torch(ask: Ask) -> dict[str, Any]:
    """Source: torch/version.py, torch's METADATA, and the bytes of its libraries; torch is not imported."""
    path = package_folder("torch")
    if path is None:
        return {"version": None}
    values = constants(read_or(path + "/version.py"))
    owner = next((item for item in distributions() if item["name"] == "torch" and not item["leftover"]), None)
    version = values.get("__version__") or (owner or {}).get("version")
    return {
        "version": version,
        "cuda": values.get("cuda"),
        "hip": values.get("hip"),
        "path": path,
        "nccl_requirement": nccl_requirement(read_or(owner["info"] + "/METADATA")) if owner else None,
        "arch_list": arch_list(path + "/lib/libtorch_python.so") if values.get("cuda") or values.get("hip") else None,
        "cxx11_abi": cxx11_abi(path + "/lib/libc10.so"),
        "glibc": newest_glibc(path + "/lib/" + name for name in ("libc10.so", "libtorch_cpu.so", "libtorch_python.so")),
    }


def newest_glibc(paths: Iterable[str]) -> str | None:
    """The newest version of glibc that libraries need, "2.28"; None when none of them says."""
    needed: list[tuple[int, ...]] = []
    for path in paths:
        try:
            library = Library(path)
        except (OSError, ValueError):
            continue
        try:
            numbers = [name[len("GLIBC_") :].split(".") for name in library.versions() if name.startswith("GLIBC_")]
            plain = [parts for parts in numbers if len(parts) in (2, 3) and all(part.isdigit() for part in parts)]
            needed += [(int(parts[0]), int(parts[1])) for parts in plain]
        finally:
            library.close()
    return "%d.%d" % max(needed) if needed else None


def nccl_requirement(text: str) -> str | None:
    """The pin "nvidia-nccl-cu12==2.27.5" in the headers of torch's METADATA; None for a build with NCCL inside."""
    import re

    for line in text.splitlines():
        if not line.strip():
            break  # the description begins
        match = "nccl" in line and re.match(r"Requires-Dist:\s*(nvidia[-_]nccl[\w-]*)\s*\(?\s*([^;)]*)", line, re.I)
        if match:
            return match.group(1).lower().replace("_", "-") + match.group(2).strip().replace(" ", "")
    return None


# torch keeps the list that torch.cuda.get_arch_list() answers as one string constant (CUDA_ARCH_FLAGS in
# torch/csrc/cuda/Module.cpp): seen in .rodata of libtorch_python.so of torch 2.10.0+cu128 as
# "sm_70 sm_75 sm_80 sm_86 sm_90 sm_100 sm_120" between two NULs, the only such text in the file.
ARCHITECTURES = r"(?:sm_\d+[a-z]?|compute_\d+[a-z]?|gfx[0-9a-f]+(?::[a-z+:-]+)?)"
ARCH_FLAGS = r"\0(%s(?: %s)*) ?\0" % (ARCHITECTURES, ARCHITECTURES)


def arch_list(path: str) -> list[str] | None:
    """The GPU architectures a torch build carries, or None when the library does not say."""
    try:
        library = Library(path)
    except (OSError, ValueError):
        return None
    try:
        match = library.search(ARCH_FLAGS)
        return match.group(1).decode("ascii").split() if match else None
    finally:
        library.close()


# c10::Error(SourceLocation, std::string) as the two ABIs of libstdc++ spell it. The first form was seen in libc10.so of
# torch 2.10.0+cu128 and 2.13.0+cpu (both ABI 1); the second is the name that extensions built for ABI 0 miss
# ("undefined symbol: _ZN3c105ErrorC2ENS_14SourceLocationESs").
CXX11_SYMBOL = r"_ZN3c105ErrorC[12]ENS_14SourceLocationE(?:(NSt7__cxx11)|Ss)"


def cxx11_abi(path: str) -> bool | None:
    """Whether a torch build uses the C++11 ABI of libstdc++, or None when its library does not say."""
    try:
        library = Library(path)
    except (OSError, ValueError):
        return None
    try:
        match = library.search(CXX11_SYMBOL, b".dynstr")
        return bool(match.group(1)) if match else None
    finally:
        library.close()
