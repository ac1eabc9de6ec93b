"""A package's compiled part was built for another torch, CUDA or Python than the installed one."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.attention import asked_for
from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.installed import versions
from dsdoctor.checks.ops import needed
from dsdoctor.checks.remedy import install, on_host
from dsdoctor.cluster import HostEntry
from dsdoctor.facts import FactUnavailable, HostFacts, NativeModule
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped

# Parts that their package does without (torchvision warns and decodes images by PIL).
_OPTIONAL = ("image", "video_reader", "Decoder")


@check(severity=Severity.WARNING, since="0.1")
def built_for_another_torch(
    host: HostFacts, entry: HostEntry, context: JobContext | None
) -> Iterator[Finding | Skipped]:
    """A compiled module (flash-attn, xformers, torchvision, apex ...) does not fit the installed torch.

    ## Why it matters
    `undefined symbol: _ZN3c105ErrorC2...`, `libcudart.so.11.0: cannot open shared object file`, `operator
    torchvision::nms does not exist`: such a module holds code compiled against one torch, one CUDA and one C++ ABI, and
    no longer loads after torch alone was changed, or when the wheel was taken for another one
    (`cu118torch2.1cxx11abiFALSE` beside a torch for CUDA 12). transformers imports flash-attn wherever it is installed:
    with a broken one no model that knows it can be imported. xformers is left out with a warning.

    ## How to fix it
    Install the build that belongs to the installed torch, or uninstall the package: torch's own attention (sdpa) does
    without either.

    ## Source
    The symbols that the module asks for, looked up in the installed torch's libraries as the loader does it; nothing
    is imported. The libcudart.so that it is linked with; the Python in its file's name.
    """
    torch = host.torch
    if torch.version is None:
        return
    modules = [one for one in host.binaries.modules if not _is_optional(one)]
    there = versions(host)
    for package in dict.fromkeys(one.package for one in modules):
        wrong = [(one, why) for one in modules if one.package == package and (why := _why(host, one, modules))]
        if not wrong:
            continue
        built = host.binaries.built_for.get(package)
        told = f" (built for torch {built.torch})" if built and built.torch else ""
        version, why = there.get(package, ""), wrong[0][1]
        yield built_for_another_torch.finding(
            f"{package} {version}{told} does not fit torch {torch.version}: {why}".replace("  ", " "),
            severity=_severity(host, package, context),
            evidence=[Evidence(text=f"{one.path}: {reason}", source=host.name) for one, reason in wrong[:3]],
            fix=_fixes(host, entry, package),
        )


def _is_optional(module: NativeModule) -> bool:
    stem = module.path.rpartition("/")[2].partition(".")[0]
    return module.package in ("torchvision", "torchaudio") and stem in _OPTIONAL


def _why(host: HostFacts, module: NativeModule, modules: list[NativeModule]) -> str | None:
    """What does not fit, None for a module that does."""
    python = "".join(host.python.version.split(".")[:2])
    if module.python and module.python != python:
        stem = module.path.partition(".cpython-")[0]
        if any(other.path.partition(".cpython-")[0] == stem and other.python == python for other in modules):
            return None  # built for several
        return f"it is for Python {module.python[0]}.{module.python[1:]}, and the job's is {host.python.version}"
    cuda = host.torch.cuda
    if module.cuda and cuda and module.cuda != cuda.partition(".")[0]:
        return f"it is linked with libcudart.so.{module.cuda}, and torch has CUDA {cuda}"
    if module.cuda and cuda is None and host.torch.hip is None and module.missing:
        return "it is for CUDA, and torch is a build for CPUs"
    if not module.missing:
        return None
    if module.cxx11_abi is not None and host.torch.cxx11_abi is not None and module.cxx11_abi != host.torch.cxx11_abi:
        words = {True: "TRUE", False: "FALSE"}
        return f"it has cxx11abi{words[module.cxx11_abi]}, and torch has cxx11abi{words[host.torch.cxx11_abi]}"
    return f"torch has no symbol {module.missing[0]}"


def _severity(host: HostFacts, package: str, context: JobContext | None) -> Severity:
    """An error where the job cannot do without; a job that asks for nothing of the kind is warned."""
    if package.startswith("flash-attn"):
        try:
            imported = bool(host.gpu.gpus) and "transformers" in versions(host)
        except FactUnavailable:
            imported = False
        return Severity.ERROR if imported or any(asked_for(context)) else Severity.WARNING
    if package == "deepspeed":
        return Severity.ERROR if context and needed(context) else Severity.INFO
    return Severity.WARNING


def _fixes(host: HostFacts, entry: HostEntry, package: str) -> Iterator[Fix]:
    if package in ("torchvision", "torchaudio", "xformers"):
        release = (host.torch.version or "").partition("+")[0]
        command = install(host, package, f"torch=={release}", "--upgrade")
        yield Fix(f"Install the {package} that belongs to torch {release}", (on_host(entry, command),))
        return
    command = install(host, "--no-build-isolation", "--no-cache-dir", package, force=True)
    yield Fix(f"Build {package} against the installed torch", (on_host(entry, command),))
