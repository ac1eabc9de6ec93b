"""What stands in the way of building an op of DeepSpeed on a host: ninja, compiler, toolkit, libraries."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from dsdoctor.checks.context import JobContext
from dsdoctor.checks.installed import allows, version, versions
from dsdoctor.checks.ops import Op, built_before, has_gpus, has_own_cuda_code, variable
from dsdoctor.checks.remedy import as_root, install, on_host
from dsdoctor.checks.toolkit import builds_for, newest_gcc, oldest_gcc
from dsdoctor.cluster import HostEntry
from dsdoctor.facts import HostFacts
from dsdoctor.report.model import Fix


@dataclass(frozen=True)
class Obstacle:
    """What stands in the way of building, with what was seen and the way out."""

    told: str
    seen: str
    fix: Fix


def obstacles(host: HostFacts, entry: HostEntry, context: JobContext, op: Op) -> Iterator[Obstacle]:
    """Everything in the way of an op; one built before needs ninja and the toolkit alone. Raises FactUnavailable."""
    yield from _ninja(host, entry)
    done = built_before(host, op)
    if not done:
        yield from _compiler(host, entry)
    if has_gpus(host):
        yield from _toolkit(host, entry, op, done)
        if not done and has_own_cuda_code(op, host.deepspeed.version or ""):
            yield from _nvcc(host, entry, context)
    if op.name == "async_io":
        yield from _libaio(host, entry)


def _ninja(host: HostFacts, entry: HostEntry) -> Iterator[Obstacle]:
    """The program is called at every start, even when nothing is left to build."""
    program, package = host.compilers.tools.get("ninja"), versions(host).get("ninja")
    fix = Fix("Install ninja in the job's environment", (on_host(entry, install(host, "ninja")),))
    if program is None and package:
        folder = host.python.executable.rpartition("/")[0] or "bin"
        way = Fix(
            "Put the environment's folder on the PATH of the job: in setup: of the job file",
            (f"export PATH={folder}:$PATH",),
        )
        yield Obstacle(
            "ninja is installed, but not on the PATH of the session that starts the job",
            f"ninja {package} among the packages, no program ninja on the PATH",
            way,
        )
    elif program is None:
        yield Obstacle("there is no ninja", "no program ninja on the PATH", fix)
    elif package is None and allows("<0.18.3", host.deepspeed.version or ""):
        yield Obstacle(
            f"DeepSpeed {host.deepspeed.version} wants ninja as a Python package",
            f"{program.path}, and no package ninja",
            fix,
        )


def _compiler(host: HostFacts, entry: HostEntry) -> Iterator[Obstacle]:
    compilers = host.compilers
    if compilers.python_headers is False:
        yield Obstacle(
            "Python.h is missing",
            f"{host.python.executable} has no headers",
            Fix("Install Python's headers", (as_root(host, entry, _packages(host, "python3-dev", "python3-devel")),)),
        )
    if not compilers.cxx_name:
        return  # a snapshot of an older probe
    fix = Fix("Install a C++ compiler", (as_root(host, entry, _packages(host, "g++", "gcc-c++")),))
    if compilers.cxx is None:
        yield Obstacle(f"there is no C++ compiler {compilers.cxx_name}", f"no program {compilers.cxx_name}", fix)
        return
    found, oldest = version(compilers.cxx.version), oldest_gcc(host.torch.version or "")
    if found is not None and not compilers.cxx_clang and found.major < oldest:
        yield Obstacle(
            f"gcc is {compilers.cxx.version}, and the headers of torch {host.torch.version} want {oldest} or newer",
            f"{compilers.cxx.path}: {compilers.cxx.version}",
            Fix(
                "Take a newer compiler: in setup: of the job file, or CC and CXX in env:",
                ("source scl_source enable devtoolset-11   # CentOS 7; elsewhere: export CC=gcc-11 CXX=g++-11",),
            ),
        )


def _toolkit(host: HostFacts, entry: HostEntry, op: Op, done: bool) -> Iterator[Obstacle]:
    """The toolkit's parts: an op of the processor is linked with libcurand, and asks nvcc for its version each time."""
    cuda, wanted = host.cuda, ".".join((host.torch.cuda or "").split(".")[:2])
    fix = Fix(
        f"Install the toolkit of CUDA {wanted}, torch's version, and set CUDA_HOME for the job",
        (on_host(entry, f"conda install -c nvidia cuda-toolkit={wanted}"),),
    )
    if cuda.home is None:
        yield Obstacle("there is no CUDA toolkit", "no CUDA_HOME, no nvcc on the PATH, no /usr/local/cuda", fix)
    elif cuda.nvcc_version is None and (op.for_processor or not done):
        yield Obstacle("the CUDA toolkit has no nvcc", f"{cuda.home}: no nvcc that runs", fix)
    elif not done and cuda.runtime_headers is False:
        yield Obstacle("the CUDA toolkit has no headers", f"{cuda.home}: no include/cuda_runtime.h", fix)
    elif not done and op.for_processor and op.name != "async_io" and cuda.curand is False:
        yield Obstacle("the CUDA toolkit has no libcurand", f"{cuda.home}: no curand_kernel.h and libcurand.so", fix)


def _nvcc(host: HostFacts, entry: HostEntry, context: JobContext) -> Iterator[Obstacle]:
    """Whether nvcc takes the compiler and knows the cards."""
    cuda = host.cuda.nvcc_version
    if cuda is None:
        return
    for gpu in host.gpu.gpus:
        card = gpu.compute_capability
        if card is not None and not builds_for(cuda, card):
            yield Obstacle(
                f"nvcc of CUDA {cuda} makes no code for {gpu.name}",
                f"{host.cuda.nvcc}: {cuda}; GPU {gpu.index}: compute capability {card[0]}.{card[1]}",
                Fix(f"Build with a toolkit of CUDA {host.torch.cuda}, torch's version: set CUDA_HOME for the job"),
            )
            break
    flags = " ".join(variable(host, entry, context, f"NVCC_{place}_FLAGS") or "" for place in ("PREPEND", "APPEND"))
    if "-ccbin" in flags or "-allow-unsupported-compiler" in flags or variable(host, entry, context, "CC"):
        return
    gcc, newest = host.compilers.tools.get("gcc"), newest_gcc(cuda)
    found = version(gcc.version) if gcc else None
    if gcc is not None and found is not None and newest is not None and found.major > newest:
        yield Obstacle(
            f"nvcc of CUDA {cuda} takes gcc up to {newest}, and the host's is {gcc.version}",
            f"{gcc.path}: {gcc.version}; {host.cuda.nvcc}: {cuda}",
            Fix(
                f"Give nvcc a gcc up to {newest}",
                (as_root(host, entry, f"apt-get install -y g++-{newest}"),),
                env={"CC": f"gcc-{newest}", "CXX": f"g++-{newest}"},
            ),
        )


def _libaio(host: HostFacts, entry: HostEntry) -> Iterator[Obstacle]:
    library, header = host.compilers.libaio, host.compilers.libaio_header
    if library is None or (library and header):
        return
    missing = "libaio.so" if not library else "libaio.h"
    yield Obstacle(
        "libaio's development files are missing",
        f"the compiler finds no {missing}",
        Fix("Install them", (as_root(host, entry, _packages(host, "libaio-dev", "libaio-devel")),)),
    )


def _packages(host: HostFacts, debian: str, redhat: str) -> str:
    """The command that installs a package of the system."""
    family = host.os.distribution_id
    if family in ("centos", "rhel", "rocky", "almalinux", "fedora", "amzn", "ol"):
        return f"yum install -y {redhat}"
    return f"apt-get install -y {debian}"
