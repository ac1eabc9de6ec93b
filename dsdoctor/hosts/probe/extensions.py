"""The cache of torch's extensions."""

from __future__ import annotations

import os
import sys
import time

from .constants import constants
from .files import entries, read_or
from .mounts import mount_of, mounts
from .packages import package_folder
from .processes import holders
from .question import Ask, section

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def extension_cache(ask: Ask) -> str:
    """Where torch builds extensions. Source: _get_build_directory of torch/utils/cpp_extension.py."""
    cache = ask.variables.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return ask.variables.get("TORCH_EXTENSIONS_DIR") or os.path.join(cache, "torch_extensions")


CACHE_ENTRIES = 500  # of a folder in the cache of extensions


@section
def fact_extensions(ask: Ask) -> dict[str, Any]:
    """Source: the folders that torch.utils.cpp_extension builds in, their `lock` and build.ninja; /proc/PID/fd."""
    folder = os.path.abspath(os.path.expanduser(extension_cache(ask)))
    _, filesystem, source = mount_of(os.path.realpath(folder), mounts())
    torch = package_folder("torch")
    values = constants(read_or(torch + "/version.py")) if torch else {}
    shared = not ask.variables.get("TORCH_EXTENSIONS_DIR")
    return {
        "folder": folder,
        "exists": os.path.isdir(folder),
        "filesystem": filesystem,
        "source": source,
        "environment": extension_environment(values) if torch and shared else None,
        "lock_kind": lock_kind(torch) if torch else None,
        "builds": extension_builds(folder),
    }


def extension_environment(values: dict[str, Any]) -> str:
    """The folder that this Python and the torch with these versions use: py311_cu128."""
    kind = "cpu"
    for name, prefix in (("cuda", "cu"), ("hip", "rocm")):
        if values.get(name):
            kind = prefix + str(values[name]).replace(".", "")
    return "py%d%d%s_%s" % (sys.version_info[0], sys.version_info[1], getattr(sys, "abiflags", ""), kind)


def lock_kind(torch: str) -> str | None:
    """How a torch guards a build: by a file's being there (FileBaton), or by a kernel's lock (pytorch#190543)."""
    text = read_or(torch + "/utils/cpp_extension.py")
    return "file" if "FileBaton(" in text else "flock" if "FileLock(" in text else None


def extension_builds(folder: str) -> list[dict[str, Any]]:
    """The builds in a cache, each in a folder of its own or one below that of a Python."""
    found: list[dict[str, Any]] = []
    for name in entries(folder)[:CACHE_ENTRIES]:
        path = os.path.join(folder, name)
        names = entries(path)[:CACHE_ENTRIES]
        if is_build(names):
            found.append(extension_build(name, path, names))
            continue
        for inner in names:
            inside = entries(os.path.join(path, inner))[:CACHE_ENTRIES]
            if is_build(inside):
                found.append(extension_build(name + "/" + inner, os.path.join(path, inner), inside))
    return found[:CACHE_ENTRIES]


def is_build(names: list[str]) -> bool:
    """Whether a folder of these names is one that an extension is built in."""
    return any(name in ("lock", "build.ninja") or name.endswith(".so") for name in names)


def extension_build(name: str, path: str, names: list[str]) -> dict[str, Any]:
    """One build. The file `lock` is made when a build begins and never written again, so its age is the build's."""
    recipe = read_or(path + "/build.ninja")
    row: dict[str, Any] = {
        "name": name,
        "path": path,
        "built": any(each.endswith(".so") for each in names),
        "native": "-march=native" in recipe or "-mcpu=native" in recipe,
    }
    try:
        age = time.time() - os.lstat(path + "/lock").st_mtime
    except OSError:
        return row
    return dict(row, lock_age_seconds=round(max(0.0, age), 1), lock_holders=holders(path + "/lock"))
