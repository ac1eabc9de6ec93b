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
    for line in text.splitlines():
        if not line.strip():
            break  # the description begins
        if "nccl" not in line.lower():
            continue
        header, _, asked = line.partition(":")
        asked = asked.strip()
        end = next(
            (place for place, letter in enumerate(asked) if not (letter.isalnum() or letter in "-_")), len(asked)
        )
        name = asked[:end].lower().replace("_", "-")
        if header.lower() == "requires-dist" and name.startswith("nvidia-nccl"):
            pin = asked[end:].lstrip()
            pin = pin[1:] if pin.startswith("(") else pin
            return name + pin.partition(";")[0].partition(")")[0].strip().replace(" ", "")
    return None


def arch_list(path: str) -> list[str] | None:
    """The GPU architectures a torch build carries, or None when the library does not say.

    torch keeps the list that torch.cuda.get_arch_list() answers as one string constant (CUDA_ARCH_FLAGS in
    torch/csrc/cuda/Module.cpp): seen in .rodata of libtorch_python.so of torch 2.10.0+cu128 as
    "sm_70 sm_75 sm_80 sm_86 sm_90 sm_100 sm_120" between two NULs, the only such text in the file.
    """
    try:
        library = Library(path)
    except (OSError, ValueError):
        return None
    try:
        for beginning in (b"sm_", b"compute_", b"gfx"):
            for text in library.after(b"\0" + beginning, LIST_BYTES):
                flags, end, _ = (beginning + text).partition(b"\0")
                words = flags.decode("latin-1").rstrip(" ").split(" ")
                if end and all(is_architecture(word) for word in words):
                    return words
        return None
    finally:
        library.close()


LIST_BYTES = 4096  # more than all architectures together take


def is_architecture(word: str) -> bool:
    """Whether a word is a GPU architecture: sm_90, sm_90a, compute_90, gfx942, gfx942:sramecc+:xnack-."""
    for beginning in ("sm_", "compute_"):
        number = word[len(beginning) :] if word.startswith(beginning) else ""
        if number and number.isascii():
            return number.isdigit() or (number[:-1].isdigit() and "a" <= number[-1] <= "z")
    number, colon, features = word[3:].partition(":") if word.startswith("gfx") else ("", "", "")
    known = bool(number) and not set(number) - set("0123456789abcdef")
    return known and bool(features or not colon) and not set(features) - set("abcdefghijklmnopqrstuvwxyz+-:")


# c10::Error(SourceLocation, std::string) as the two ABIs of libstdc++ spell it. The first form was seen in libc10.so of
# torch 2.10.0+cu128 and 2.13.0+cpu (both ABI 1); the second is the name that extensions built for ABI 0 miss
# ("undefined symbol: _ZN3c105ErrorC2ENS_14SourceLocationESs").
CONSTRUCTOR = b"_ZN3c105ErrorC"
LOCATION = (b"1ENS_14SourceLocationE", b"2ENS_14SourceLocationE")


def cxx11_abi(path: str) -> bool | None:
    """Whether a torch build uses the C++11 ABI of libstdc++, or None when its library does not say."""
    try:
        library = Library(path)
    except (OSError, ValueError):
        return None
    try:
        for rest in library.after(CONSTRUCTOR, 64, b".dynstr"):
            text = rest[len(LOCATION[0]) :] if rest.startswith(LOCATION) else b""
            if text.startswith((b"NSt7__cxx11", b"Ss")):
                return text.startswith(b"NSt")
        return None
    finally:
        library.close()
