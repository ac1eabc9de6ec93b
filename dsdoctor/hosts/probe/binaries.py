"""Compiled modules linked with torch, and what they ask of it."""

from __future__ import annotations

import os
import struct
import time

from .elf import Library, Symbols
from .files import entries, number, read_or
from .packages import package_folder, site_folders
from .question import Ask, section

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

NATIVE_SECONDS = 4.0
TORCH_LIBRARIES = (
    "libc10.so",
    "libtorch_cpu.so",
    "libtorch_python.so",
    "libc10_cuda.so",
    "libtorch_cuda.so",
    "libtorch_cuda_linalg.so",
    "libtorch.so",
)
# c10::, at::, torch:: and caffe2::, as the Itanium C++ ABI spells names, vtables and typeinfo of them.
OF_TORCH = rb"_Z(?:NK?|T[VIST]N?)(?:3c10|2at|5torch|6caffe2)\d"
# Modules that lie beside the package that they belong to.
OWNERS = {
    "flash_attn_2_cuda": "flash-attn",
    "flash_attn_cuda": "flash-attn",
    "flash_attn_3_cuda": "flash-attn-3",
    "fused_dense_lib": "flash-attn",
    "dropout_layer_norm": "flash-attn",
    "rotary_emb": "flash-attn",
    "causal_conv1d_cuda": "causal-conv1d",
    "selective_scan_cuda": "mamba-ssm",
    "amp_C": "apex",
    "apex_C": "apex",
    "fused_layer_norm_cuda": "apex",
}
NATIVE_FOLDERS = ("flash_attn_3", "xformers", "torchvision", "torchaudio/lib", "torchaudio", "exllamav2", "vllm")


@section
def fact_binaries(ask: Ask) -> dict[str, Any]:
    """Source: the dynamic tables of compiled modules and of torch's libraries, which are not loaded; cpp_lib.json."""
    until = min(time.monotonic() + NATIVE_SECONDS, ask.deadline)
    torch = torch_symbols()
    modules = []
    for package, path in native_files():
        row = native_module(package, path, torch, until)
        if row is not None:
            modules.append(row)
    built = built_for(read_or((package_folder("xformers") or "") + "/cpp_lib.json"))
    return {"modules": modules, "built_for": {"xformers": built} if built else {}}


def native_files() -> Iterator[tuple[str, str]]:
    """The files that may be compiled modules linked with torch, each with its package."""
    for folder in site_folders():
        if os.path.basename(folder) not in ("site-packages", "dist-packages"):
            continue
        for name in entries(folder):
            if name.endswith(".so"):
                stem = name.partition(".")[0]
                yield OWNERS.get(stem, stem.replace("_", "-").lower()), os.path.join(folder, name)
        operations = os.path.join(folder, "deepspeed/ops")
        inside = [os.path.join(folder, name) for name in NATIVE_FOLDERS]
        inside += [os.path.join(operations, name) for name in entries(operations)]
        for path in inside:
            package = os.path.relpath(path, folder).split("/")[0].replace("_", "-")
            for name in entries(path):
                if name.endswith(".so"):
                    yield package, os.path.join(path, name)


def torch_symbols() -> list[Symbols]:
    """The symbol tables of the installed torch's libraries; none where a library of them cannot be read."""
    path = package_folder("torch")
    found = []
    for name in TORCH_LIBRARIES if path else ():
        try:
            found.append(Symbols(Library("%s/lib/%s" % (path, name))))
        except OSError:
            continue  # a build for CPUs has no libtorch_cuda.so
        except (KeyError, StopIteration, ValueError, struct.error):
            return []  # it cannot be told what torch has
    return found


def native_module(package: str, path: str, torch: list[Symbols], until: float) -> dict[str, Any] | None:
    """A compiled module that is linked with torch, or None for another file."""
    try:
        library = Library(path)
    except (OSError, ValueError):
        return None
    try:
        needed = library.dynamic()["needed"]
        if not any(name.startswith(("libtorch", "libc10")) for name in needed):
            return None
        runtime = next((name for name in needed if name.startswith("libcudart.so.")), "")
        missing = None if time.monotonic() > until else missing_symbols(library, path, needed, torch, until)
        return {
            "package": package,
            "path": path,
            "python": python_tag(os.path.basename(path)),
            "cuda": runtime[len("libcudart.so.") :].partition(".")[0] or None,
            "cxx11_abi": module_abi(library),
            "missing": (missing or [])[:3],
            "checked": missing is not None,
        }
    finally:
        library.close()


def python_tag(name: str) -> str | None:
    """The "311" of module.cpython-311-x86_64-linux-gnu.so."""
    tag = name.partition(".cpython-")[2]
    end = next((place for place, letter in enumerate(tag) if not letter.isdigit()), len(tag))
    return tag[:end] or None


def missing_symbols(
    library: Library, path: str, needed: list[str], torch: list[Symbols], until: float
) -> list[str] | None:
    """The symbols of torch that a module asks for and no library that it loads has; None when that cannot be told."""
    import re

    if not torch:
        return None
    try:
        offered = torch + [Symbols(Library(place)) for place in beside(path, needed)]
        found = []
        for name in Symbols(library).wanted():
            if time.monotonic() > until:
                return None
            if re.match(OF_TORCH, name) and not any(symbols.has(name) for symbols in offered):
                found.append(name.decode("ascii", "replace"))
                if len(found) == 3:
                    break
        return found
    except (OSError, KeyError, StopIteration, ValueError, struct.error):
        return None


def beside(path: str, needed: list[str]) -> list[str]:
    """Libraries of the module's own package that it is linked with: in its folder, or in NAME.libs beside it."""
    folder = os.path.dirname(path)
    places = [folder, os.path.join(folder, "lib"), folder + ".libs"]
    paths = [os.path.join(place, name) for place in places for name in needed if "/" not in name]
    return [path for path in paths if os.path.isfile(path)]


def module_abi(library: Library) -> bool | None:
    """Whether a module uses the C++11 ABI of libstdc++ in what it asks of torch, or None when it passes no strings."""
    if library.search(r"_ZNK?3c10\w*NSt7__cxx11", b".dynstr"):
        return True
    return False if library.search(r"_ZNK?3c10[A-Za-z0-9]\w*Ss\w*\0", b".dynstr") else None


def built_for(text: str) -> dict[str, Any] | None:
    """What xformers/cpp_lib.json says of its build: {"version": {"torch": "2.5.0+cu121", "cuda": 1201, ...}}."""
    if not text:
        return None
    import json

    try:
        version = json.loads(text)["version"]
        cuda = number(version.get("cuda"))
        return {
            "torch": str(version["torch"]) if version.get("torch") else None,
            "cuda": "%d.%d" % (cuda // 100, cuda % 100) if cuda else None,
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
