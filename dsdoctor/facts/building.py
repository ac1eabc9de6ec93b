"""What extensions are built with, and what was built."""

from __future__ import annotations

import msgspec


class CudaToolkit(msgspec.Struct, frozen=True, kw_only=True):
    """One CUDA toolkit on the host."""

    path: str
    version: str | None = None  # of nvcc: "12.6"


class CudaFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The CUDA toolkit that a build would use (CUDA_HOME, else nvcc on the PATH, else /usr/local/cuda), and others."""

    home: str | None = None
    nvcc: str | None = None
    nvcc_version: str | None = None  # "12.6"
    toolkits: tuple[CudaToolkit, ...] = ()
    runtime_headers: bool | None = None  # cuda_runtime.h is in the home's include; None: no home, or not looked for
    curand: bool | None = None  # curand_kernel.h and libcurand.so are in the home: cpu_adam is linked with it


class Tool(msgspec.Struct, frozen=True, kw_only=True):
    """A program on the PATH."""

    path: str
    version: str = ""  # empty: it does not run; of ninja and make nobody asks


class CompilerFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What building an op needs: gcc, g++, ninja, make; None where the program is missing."""

    tools: dict[str, Tool | None] = {}
    python_headers: bool | None = None
    cxx: Tool | None = None  # what torch compiles with: $CXX, else c++
    cxx_name: str = ""  # as it is asked for; empty in snapshots that did not look for it
    cxx_clang: bool = False
    libaio: bool | None = None  # the linker finds libaio.so; None: no compiler to ask
    libaio_header: bool | None = None  # the compiler finds libaio.h


class ExtensionBuild(msgspec.Struct, frozen=True, kw_only=True):
    """A folder of torch's extension cache: an op that torch.utils.cpp_extension built there, or is to build."""

    name: str  # below the cache: "py311_cu128/cpu_adam"
    path: str
    built: bool = False  # a shared library lies there
    native: bool = False  # its build.ninja asks for the instructions of the host that builds it (-march=native)
    lock_age_seconds: float | None = None  # of the file called `lock`; None: there is none
    lock_holders: tuple[int, ...] = ()  # this host's processes that have it open


class ExtensionFacts(msgspec.Struct, frozen=True, kw_only=True):
    """torch's cache of extensions that are built at first use.

    `lock_kind` says how the installed torch guards a build: `file`, a file whose being there is the lock (FileBaton; a
    killed build leaves it), or `flock`, a lock of the kernel's on a file that stays (torch 2.14). None: no torch.
    """

    folder: str
    exists: bool = False
    filesystem: str = ""
    source: str = ""  # the device or export
    environment: str | None = None  # the folder in it that this Python and torch use: "py311_cu128"; None: itself
    lock_kind: str | None = None
    builds: tuple[ExtensionBuild, ...] = ()
