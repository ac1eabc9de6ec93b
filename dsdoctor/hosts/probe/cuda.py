"""CUDA toolkits."""

from __future__ import annotations

import os
import sys

from .compilers import program_version, version_text
from .files import at, entries, raw_or, read_or, which
from .question import Ask, section

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


@section
def fact_cuda(ask: Ask) -> dict[str, Any]:
    """Source: CUDA_HOME, CUDA_PATH, the PATH, /usr/local, in the order of torch's cpp_extension; `nvcc --version`."""
    on_path = which("nvcc")
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    if not home:
        home = os.path.dirname(os.path.dirname(on_path)) if on_path else at("/usr/local/cuda")
        home = home if os.path.isdir(home) else None
    nvcc = home + "/bin/nvcc" if home and os.access(home + "/bin/nvcc", os.X_OK) else on_path
    usual = [at("/usr/local/") + name for name in entries(at("/usr/local")) if is_toolkit(name)]
    folders = [home] if home else []
    folders += usual + [at("/opt/cuda"), sys.prefix, os.environ.get("CONDA_PREFIX", sys.prefix)]
    toolkits: dict[str, dict[str, Any]] = {}
    for folder in folders:
        real = os.path.realpath(folder)
        version = toolkit_version(real)
        if version and real not in toolkits:
            toolkits[real] = {"path": folder, "version": version}
    return {
        "home": home,
        "nvcc": nvcc,
        "nvcc_version": nvcc_version(nvcc) if nvcc else None,
        "toolkits": list(toolkits.values()),
        "runtime_headers": toolkit_has(home, "include", "cuda_runtime.h") if home else None,
        "curand": toolkit_has(home, "include", "curand_kernel.h") and toolkit_has(home, "lib", "libcurand.so")
        if home
        else None,
    }


def is_toolkit(name: str) -> bool:
    """Whether a folder is named as a toolkit: cuda, cuda-12, cuda-12.6."""
    parts = name[len("cuda-") :].split(".")
    return name == "cuda" or (name[:5] == "cuda-" and len(parts) < 3 and all(part.isdigit() for part in parts))


def toolkit_has(home: str, kind: str, name: str) -> bool:
    """Whether a toolkit has a header or a library; conda keeps them in targets/x86_64-linux."""
    folders = ["/include"] if kind == "include" else ["/lib64", "/lib"]
    targets = [home + "/targets/" + target for target in entries(home + "/targets")]
    return any(os.path.isfile("%s%s/%s" % (base, folder, name)) for base in [home] + targets for folder in folders)


def nvcc_version(nvcc: str) -> str | None:
    """The "12.6" of `nvcc --version`; None when it does not run or does not say."""
    return ".".join(program_version(version_text(nvcc)).split(".")[:2]) or None


def header_version(header: bytes) -> int:
    """The number in `#define CUDA_VERSION 12060`; 0 where there is none."""
    place = header.find(b"CUDA_VERSION")
    while place >= 0:
        words = header[header.rfind(b"\n", 0, place) + 1 :].partition(b"\n")[0].split()
        if words[:2] == [b"#define", b"CUDA_VERSION"] and words[2:] and words[2].isdigit():
            return int(words[2])
        place = header.find(b"CUDA_VERSION", place + 1)
    return 0


def toolkit_version(folder: str) -> str | None:
    """A toolkit's version out of include/cuda.h (`#define CUDA_VERSION 12060`), version.json or version.txt."""
    for limit in (1 << 14, 1 << 17):  # it stands 10 kB from the beginning of a file of 1 MB
        header = raw_or(folder + "/include/cuda.h", limit)
        value = header_version(header if len(header) < limit else header[: header.rfind(b"\n") + 1])
        if value:
            return "%d.%d" % (value // 1000, value % 1000 // 10)
    text = read_or(folder + "/version.json") or read_or(folder + "/version.txt")
    if not text:
        return None
    import re

    match = re.search(r'"nvcc"[^}]*"version"\s*:\s*"(\d+\.\d+)|CUDA Version (\d+\.\d+)', text, re.S)
    return (match.group(1) or match.group(2)) if match else None
