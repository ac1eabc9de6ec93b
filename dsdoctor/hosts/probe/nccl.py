"""NCCL: every copy, who owns it, and the one that torch would load."""

from __future__ import annotations

import os
import sys

from .elf import Library
from .files import at, entries, read_or, unique, which
from .loader import NCCL_NAME, SYSTEM_FOLDERS, loader_cache, path_list
from .packages import distributions, package_folder, public, site_folders
from .programs import answer_of
from .question import Ask, section

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

# Seen in .rodata of libnccl.so.2: "NCCL version 2.27.5+cuda12.9" (nvidia-nccl-cu12 2.27.5) and "NCCL version
# 2.29.7+cuda13.2" (nvidia-nccl-cu13 2.29.7), each followed further on by "NCCL version 2.27.5 compiled with CUDA 12.9".
NCCL_VERSION = b"NCCL version "
OF_CUDA = ("+cuda", " compiled with CUDA ")


def nccl_version(path: str) -> tuple[str | None, str | None]:
    """The version and CUDA version that a library's bytes name; None for what they do not."""
    try:
        library = Library(path)
    except (OSError, ValueError):
        return None, None
    try:
        return version_in(library)
    finally:
        library.close()


def version_in(library: Library) -> tuple[str | None, str | None]:
    """The first version of NCCL that a library's bytes name, and its CUDA version."""
    for following in library.after(NCCL_VERSION, 64):
        text = following.decode("latin-1")
        version = numbers(text, 3)
        if version:
            rest = text[len(version) :]
            after = next((rest[len(mark) :] for mark in OF_CUDA if rest.startswith(mark)), "")
            return version, numbers(after, 2) or None
    return None, None


def numbers(text: str, most: int) -> str:
    """The numbers with points between them that a text begins with, two at least; nothing without."""
    found: list[str] = []
    for part in text.split(".")[:most]:
        end = next((place for place, letter in enumerate(part) if not "0" <= letter <= "9"), len(part))
        found += [part[:end]] if end else []
        if end < len(part) or not end:
            break
    return ".".join(found) if len(found) > 1 else ""


def nccl_owners() -> list[tuple[dict[str, Any], str]]:
    """Every distribution that claims a libnccl.so.2, with the path it claims, the file there or not.

    The wheels nvidia-nccl-cu11, -cu12 and -cu13 claim the same `nvidia/nccl/lib/libnccl.so.2`.
    """
    owners: list[tuple[dict[str, Any], str]] = []
    for item in distributions():
        if not item["name"].startswith("nvidia-nccl") or item["leftover"]:
            continue
        record = read_or(item["info"] + "/RECORD")
        names = [line.split(",")[0].strip('"') for line in record.splitlines()]
        claimed = [name for name in names if os.path.basename(name) == NCCL_NAME]
        if not claimed and not record:
            claimed = ["nvidia/nccl/lib/" + NCCL_NAME]  # an installer that wrote no RECORD
        owners.extend((item, os.path.normpath(os.path.join(item["location"], name))) for name in claimed[:1])
    return owners


def nccl_in(folder: str) -> list[str]:
    """The NCCL libraries in a folder: the name that the loader looks for first, then the others."""
    names = [name for name in entries(folder) if name == "libnccl.so" or name.startswith("libnccl.so.")]
    return [os.path.join(folder, name) for name in sorted(names, key=lambda name: (name != NCCL_NAME, name))]


def nccl_places(torch: str | None) -> Iterator[tuple[str, str]]:
    """Every place an NCCL may come from, with its source, the most specific first."""
    for folder in site_folders():
        for path in nccl_in(folder + "/nvidia/nccl/lib"):
            yield path, "wheel"
    for path in nccl_in(torch + "/lib") if torch else []:
        yield path, "torch"
    for path in path_list("LD_PRELOAD"):
        if os.path.basename(path).startswith("libnccl.so") and "/" in path:
            yield path, "ld-preload"
    for folder in path_list("LD_LIBRARY_PATH"):
        for path in nccl_in(folder):
            yield path, "ld-library-path"
    for path in loader_cache(NCCL_NAME):
        yield path, "ldconfig"
    for folder in unique([sys.prefix, sys.base_prefix, os.environ.get("CONDA_PREFIX", sys.prefix)]):
        for path in nccl_in(folder + "/lib") if os.path.isdir(folder + "/conda-meta") else []:
            yield path, "conda"
    for folder in SYSTEM_FOLDERS:
        for path in nccl_in(at(folder)):
            yield path, "system"


@section
def fact_nccl(ask: Ask) -> dict[str, Any]:
    """Source: RECORD files of the nvidia-nccl wheels, the libraries' bytes, the loader's search order (ld.so(8))."""
    torch = package_folder("torch")
    owners = nccl_owners()
    copies: list[dict[str, Any]] = []
    for path, source in nccl_places(torch):
        real = os.path.realpath(path)
        if not os.path.isfile(real) or any(copy["real_path"] == real for copy in copies):
            continue
        claims = [item for item, claimed in owners if os.path.realpath(claimed) == real]
        copies.append(nccl_copy(path, real, source, ["%s==%s" % (item["name"], item["version"]) for item in claims]))
    loaded = torch_nccl(torch) if torch else None
    if loaded and not any(copy["real_path"] == os.path.realpath(loaded) for copy in copies):
        copies.append(nccl_copy(loaded, os.path.realpath(loaded), "torch" if "/torch/" in loaded else "other", []))
    shared = [path for _, path in owners] + [copy["path"] for copy in copies if copy["source"] == "wheel"]
    return {
        "copies": copies,
        "owners": [public(item) for item, _ in owners],
        "wheel_file": shared[0] if shared else None,
        "wheel_file_exists": bool(shared) and os.path.isfile(shared[0]),
        "loaded": next((c["path"] for c in copies if loaded and c["real_path"] == os.path.realpath(loaded)), None),
    }


def nccl_copy(path: str, real: str, source: str, owners: list[str]) -> dict[str, Any]:
    """One NCCL library as it is reported."""
    version, cuda = nccl_version(real)
    row = {"path": path, "real_path": real, "version": version, "cuda": cuda, "source": source, "owners": owners}
    manager, package = (None, None) if source in ("wheel", "torch") else owning_package(path, real)
    return dict(row, manager=manager, package=package) if package else row


def is_nccl_list(name: str) -> bool:
    """Whether a file of dpkg's lists what a package libnccl2 or libnccl2:amd64 has installed."""
    package, _, architecture = name[: -len(".list")].partition(":")
    number = package[len("libnccl") :]
    return (
        name.startswith("libnccl")
        and name.endswith(".list")
        and (not number or number.isdigit())
        and (not architecture or architecture.isalnum())
    )


def owning_package(path: str, real: str) -> tuple[str | None, str | None]:
    """Who installed a library, deb, rpm or conda, and the package with its version; None for one put there by hand.

    Source: the file lists of dpkg and conda, and `rpm -qf`.
    """
    meta = os.path.dirname(os.path.dirname(path)) + "/conda-meta"
    for name in entries(meta):
        parts = name.split("-")
        if len(parts) == 3 and parts[0] == "nccl" and all(parts) and name.endswith(".json"):
            return "conda", "nccl %s" % parts[1]
    lists = at("/var/lib/dpkg/info/")
    spellings = {path, real, real[len("/usr") :] if real.startswith("/usr/lib") else real, "/usr" + real}
    for name in entries(lists):
        if is_nccl_list(name) and spellings & set(read_or(lists + name).split("\n")):
            package = name[: -len(".list")]
            return "deb", answer_of(which("dpkg-query"), "-W", "-f", "${Package} ${Version}", package) or package
    if entries(lists) or not os.path.isdir(at("/var/lib/rpm")):
        return None, None
    package = answer_of(which("rpm"), "-qf", "--qf", "%{NAME} %{VERSION}-%{RELEASE}\\n", real).split("\n")[0]
    return ("rpm", package) if package else (None, None)


def torch_nccl(torch: str) -> str | None:
    """The library that gives torch its NCCL: libnccl.so.2 by the loader's order, or torch's own with NCCL inside.

    The order is ld.so(8)'s: a library of that name that is loaded already, DT_RPATH (unless there is a DT_RUNPATH),
    LD_LIBRARY_PATH, DT_RUNPATH, the cache, the default folders. libtorch_cuda.so of torch 2.10.0 (PyPI) has a DT_RPATH
    with $ORIGIN/../../nvidia/nccl/lib in it and no DT_RUNPATH: its wheel's file comes before LD_LIBRARY_PATH.
    Loaded already are LD_PRELOAD's, and what `torch/__init__.py` opens itself: in 2.10.0 and 2.13.0 the first
    nvidia/nccl/lib/libnccl.so.* on sys.path, when the CUDA wheels are there (`_preload_cuda_deps`). Where the loader
    finds none, older ones do the same.
    """
    user = os.path.join(torch, "lib", "libtorch_cuda.so")
    try:
        library = Library(user)
    except (OSError, ValueError):
        return None  # a CPU build
    try:
        table = library.dynamic()
        if NCCL_NAME not in table["needed"]:
            return user if version_in(library)[0] else None
    finally:
        library.close()
    own = [folder.replace("${ORIGIN}", "$ORIGIN") for entry in table["rpath"] for folder in entry.split(":")]
    late = [folder.replace("${ORIGIN}", "$ORIGIN") for entry in table["runpath"] for folder in entry.split(":")]
    origin = os.path.dirname(user)  # as it is opened: the loader follows no link for $ORIGIN, the kernel all for `..`
    folders = ([] if late else own) + path_list("LD_LIBRARY_PATH") + late
    candidates: list[str] = []
    for path in path_list("LD_PRELOAD"):
        if os.path.basename(path).startswith("libnccl.so"):
            bare = [os.path.join(folder, path) for folder in path_list("LD_LIBRARY_PATH")] + loader_cache(NCCL_NAME)
            candidates += [path] if "/" in path else bare
    candidates += torch_preloads(torch)
    candidates += [os.path.join(folder.replace("$ORIGIN", origin), NCCL_NAME) for folder in folders if folder]
    candidates += loader_cache(NCCL_NAME)
    candidates += [os.path.join(folder, NCCL_NAME) for folder in ("/lib64", "/usr/lib64", "/lib", "/usr/lib")]
    candidates += [os.path.join(folder, "nvidia/nccl/lib", NCCL_NAME) for folder in site_folders()]
    return next((os.path.realpath(path) for path in candidates if os.path.isfile(path)), None)


def torch_preloads(torch: str) -> list[str]:
    """What torch's own start-up opens before its libraries ask for NCCL. Source: torch/__init__.py, read as text."""
    text = read_or(torch + "/__init__.py", limit=1 << 19)
    called = any(line[:1].isspace() and line.lstrip().startswith("_preload_cuda_deps()") for line in text.splitlines())
    if not called or "libnccl.so" not in text:
        return []
    folders = site_folders()
    # It goes through its list in order and gives up at the first library missing; cublas is the first.
    if not any(os.path.isdir("%s/nvidia/%s/lib" % (folder, name)) for folder in folders for name in ("cublas", "cu13")):
        return []
    return [path for folder in folders for path in nccl_in(folder + "/nvidia/nccl/lib")[:1]][:1]
