"""The interpreter and its packages: versions, requirements, compiled modules, NCCL."""

from __future__ import annotations

import msgspec


class PythonFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The interpreter that the job will use."""

    version: str  # "3.11.7"
    executable: str
    implementation: str = "CPython"
    prefix: str = ""
    base_prefix: str = ""
    conda_prefix: str | None = None
    user_site: str | None = None
    user_site_enabled: bool = False
    path: tuple[str, ...] = ()


class Package(msgspec.Struct, frozen=True, kw_only=True):
    """One installed distribution."""

    name: str  # normalised: lower case, dashes
    version: str
    location: str = ""
    editable: bool = False


class PackageFacts(msgspec.Struct, frozen=True, kw_only=True):
    """All distributions in the order of `sys.path`: of two with one name the first is the one imported."""

    distributions: tuple[Package, ...] = ()
    leftovers: tuple[str, ...] = ()  # .dist-info folders without METADATA: what a broken (un)installation left

    def version(self, name: str) -> str | None:
        """The version that `import` would take, or None."""
        wanted = name.lower().replace("_", "-")
        return next((package.version for package in self.distributions if package.name == wanted), None)


class Requires(msgspec.Struct, frozen=True, kw_only=True):
    """What a distribution says that it needs, in the words of its metadata."""

    python: str = ""  # Requires-Python: ">=3.9"
    requires: tuple[str, ...] = ()  # Requires-Dist: "torch>=2.6; extra == \"torch\""


class RequirementFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The requirements of every installed distribution by name, of two with one name those of the one imported.

    Of the requirements of extras only those are there that another distribution asks for, and what transformers and
    accelerate want for torch and DeepSpeed.
    """

    packages: dict[str, Requires] = {}


class NativeModule(msgspec.Struct, frozen=True, kw_only=True):
    """A compiled module that is linked with torch: flash-attn's, xformers', torchvision's, DeepSpeed's built ops.

    `missing` are symbols of torch that it asks for and the installed torch does not have; it cannot be loaded then.
    """

    package: str
    path: str
    python: str | None = None  # "310" of a name with .cpython-310-; None: for any
    cuda: str | None = None  # major version of the libcudart.so that it asks for: "12"
    cxx11_abi: bool | None = None
    missing: tuple[str, ...] = ()  # the first 3
    checked: bool = False  # whether the symbols could be compared


class BuiltFor(msgspec.Struct, frozen=True, kw_only=True):
    """What a package says that it was built with."""

    torch: str | None = None  # "2.5.0+cu121"
    cuda: str | None = None  # "12.1"


class BinaryFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The compiled modules that are linked with torch, and what packages say of their build (xformers does)."""

    modules: tuple[NativeModule, ...] = ()
    built_for: dict[str, BuiltFor] = {}


class DeepspeedFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The installed DeepSpeed and the ops that were built at its installation; `version` None when there is none."""

    version: str | None = None
    path: str | None = None
    installed_ops: tuple[str, ...] = ()  # DS_BUILD_*: they are loaded as they are, the others are built at first use
    built_torch: str | None = None  # "2.1"
    built_cuda: str | None = None  # "12.1"


class ConfigKeyFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What the installed DeepSpeed takes in its config, by its sources; blocks are dotted, "" is the top.

    Of hosts with one release one is asked, and none for the release that the package's own table is of.
    """

    version: str
    refused: dict[str, frozenset[str]] = {}  # blocks in which it stops at another key
    ignored: dict[str, frozenset[str]] = {}  # blocks in which it passes another key over
    inner: dict[str, frozenset[str]] = {}  # second names
    old: dict[str, str] = {}  # names that were replaced, dotted
    flags: dict[str, frozenset[str]] = {}  # keys of a model that are true or false and nothing else
    optional_flags: dict[str, frozenset[str]] = {}  # and those that may be null, too
    removed: frozenset[str] = frozenset()  # keys that stop the start, dotted
    schedulers: dict[str, frozenset[str]] = {}  # with their parameters
    needed: dict[str, frozenset[str]] = {}


class TorchFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The installed torch, read from its files without importing it; `version` None when there is none."""

    version: str | None = None  # "2.1.2+cu121"
    cuda: str | None = None  # "12.1"; None for a CPU build
    hip: str | None = None
    path: str | None = None
    nccl_requirement: str | None = None  # "nvidia-nccl-cu12==2.18.1", the pin in torch's own metadata
    arch_list: tuple[str, ...] | None = None  # ("sm_70", "sm_80", "compute_90"); None when it could not be read
    glibc: str | None = None  # the newest glibc that its libraries ask for: "2.28"
    cxx11_abi: bool | None = None


class BitsandbytesFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The bitsandbytes package and the native libraries beside it; `version` None when it is not installed."""

    version: str | None = None
    path: str | None = None
    libraries: tuple[str, ...] = ()  # file names: libbitsandbytes_cuda121.so


class NcclCopy(msgspec.Struct, frozen=True, kw_only=True):
    """One libnccl.so.2 on the host."""

    path: str
    real_path: str = ""
    version: str | None = None  # read from the bytes of the file: "2.18.1"
    cuda: str | None = None  # the "+cuda12.1" beside it
    source: str = "other"  # wheel | torch | ld-preload | ld-library-path | ldconfig | conda | system
    owners: tuple[str, ...] = ()  # "nvidia-nccl-cu12==2.18.1": every distribution that claims this file
    package: str | None = None  # "libnccl2 2.18.1-1+cuda12.1": of the system's packages or of conda's
    manager: str | None = None  # deb | rpm | conda


class NcclFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Every NCCL on the host, and the distributions that claim the wheel's shared file.

    `owners` includes distributions whose file is gone: uninstalling one of two owners deletes the file for both
    (facts.md §2). `loaded` is the copy that the job's torch would load, by the loader's order.
    """

    copies: tuple[NcclCopy, ...] = ()
    owners: tuple[Package, ...] = ()
    wheel_file: str | None = None  # where the wheels put it, whether it is there or not
    wheel_file_exists: bool = False
    loaded: str | None = None  # a path out of `copies`
