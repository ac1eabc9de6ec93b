"""Where the dynamic loader finds a library."""

from __future__ import annotations

import os
import re

from .files import SBIN, ProbeError, at, which
from .programs import run

TYPE_CHECKING = False
if TYPE_CHECKING:
    pass

NCCL_NAME = "libnccl.so.2"


def path_list(name: str) -> list[str]:
    """The entries of LD_LIBRARY_PATH or LD_PRELOAD."""
    separators = r"[:\s]" if name == "LD_PRELOAD" else "[:;]"  # ld.so(8)
    return [entry for entry in re.split(separators, os.environ.get(name, "")) if entry]


def loader_cache(library: str = NCCL_NAME) -> list[str]:
    """The paths of a library in the loader's cache. Source: `ldconfig -p`."""
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
