"""Where the dynamic loader finds a library."""

from __future__ import annotations

import os
import struct

from .files import MEMO, SBIN, ProbeError, at, raw_or, which
from .programs import run

NCCL_NAME = "libnccl.so.2"
CACHE_MAGIC = b"glibc-ld.so.cache1.1"


def path_list(name: str) -> list[str]:
    """The entries of LD_LIBRARY_PATH or LD_PRELOAD."""
    text = os.environ.get(name, "")  # with separators as ld.so(8) has them
    return (
        text.replace(":", " ").split()
        if name == "LD_PRELOAD"
        else list(filter(None, text.replace(";", ":").split(":")))
    )


def loader_cache(library: str) -> list[str]:
    """The paths of a library in the loader's cache. Source: /etc/ld.so.cache; `ldconfig -p` for one of another form."""
    if "loader cache" not in MEMO:
        MEMO["loader cache"] = raw_or(at("/etc/ld.so.cache"), 64 << 20)
    data: bytes = MEMO["loader cache"]
    name = os.fsencode(library) + b"\0"
    if not data:
        return []
    try:
        return cached(data, data.index(CACHE_MAGIC), name) if name in data else []
    except (struct.error, ValueError):
        return told_cache(library)


def cached(data: bytes, begin: int, name: bytes) -> list[str]:
    """The paths of a library in the cache that begins at a place. Raises struct.error or ValueError for no cache.

    A head of 48 bytes with the number of entries at 20; entries of 24 bytes with the places of name and path at 4 and
    8, counted from the head. Source: glibc, sysdeps/generic/dl-cache.h, struct cache_file_new.
    """
    found = []
    (count,) = struct.unpack_from("=I", data, begin + 20)
    for index in range(count):
        key, value = struct.unpack_from("=II", data, begin + 52 + 24 * index)
        if data.startswith(name, begin + key):
            found.append(os.fsdecode(data[begin + value : data.index(b"\0", begin + value)]))
    return found


def told_cache(library: str) -> list[str]:
    """The same as `ldconfig -p` prints it."""
    import re

    program = which("ldconfig", SBIN)
    if program is None:
        return []
    try:
        text = run([program, "-p"])[1]
    except ProbeError:
        return []
    return re.findall(r"^\s*%s\s.*=>\s*(\S.*?)\s*$" % re.escape(library), text, re.M)


SYSTEM_FOLDERS = (
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
    "/usr/local/lib",
    "/usr/local/lib64",
    "/usr/local/cuda/lib64",
    "/usr/local/nccl/lib",
    "/opt/nccl/lib",
)


def loadable(library: str) -> bool:
    """Whether the loader would find a library, as far as files and its cache tell."""
    folders = path_list("LD_LIBRARY_PATH") + [at(folder) for folder in SYSTEM_FOLDERS]
    return any(os.path.isfile("%s/%s" % (folder, library)) for folder in folders) or bool(loader_cache(library))
