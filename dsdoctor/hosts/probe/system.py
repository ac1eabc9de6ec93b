"""The operating system, the interpreter, the container around them."""

from __future__ import annotations

import os
import sys
import time

from .accounts import user_name
from .files import at, entries, read_or
from .packages import JOB_PATH
from .processes import own_namespaces
from .question import Ask, section

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


@section
def fact_os(ask: Ask) -> dict[str, Any]:
    """Source: uname(2), os-release(5), confstr(3), /proc/uptime."""
    uname = os.uname()
    release = os_release(read_or(at("/etc/os-release")) or read_or(at("/usr/lib/os-release")))
    uptime = read_or(at("/proc/uptime")).split()
    return {
        "hostname": uname.nodename,
        "kernel": uname.release,
        "machine": uname.machine,
        "distribution": release.get("PRETTY_NAME", ""),
        "distribution_id": release.get("ID", ""),
        "version_id": release.get("VERSION_ID", ""),
        "libc": libc_version(),
        "user": user_name(os.geteuid()),
        "uid": os.geteuid(),
        "uptime_seconds": float(uptime[0]) if uptime else None,
        "time": time.time() - (ask.timeout - ask.left()),
    }


def os_release(text: str) -> dict[str, str]:
    """The fields of an os-release file."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        name, equals, value = line.strip().partition("=")
        if equals and not name.startswith("#"):
            fields[name] = value.strip().strip("\"'")
    return fields


def libc_version() -> str:
    """The C library: "glibc 2.36", or "musl" where its loader lies."""
    try:
        version = os.confstr("CS_GNU_LIBC_VERSION")
    except (ValueError, OSError):
        version = None
    if version:
        return version
    return "musl" if any(name.startswith("ld-musl-") for name in entries(at("/lib"))) else ""


@section
def fact_python(ask: Ask) -> dict[str, Any]:
    """Source: sys and site of the interpreter that runs this."""
    import site

    prefix = next((path for path in (sys.prefix, sys.base_prefix) if os.path.isdir(path + "/conda-meta")), None)
    return {
        "version": "%d.%d.%d" % sys.version_info[:3],
        "executable": sys.executable or "",
        "implementation": {"cpython": "CPython", "pypy": "PyPy"}.get(sys.implementation.name, sys.implementation.name),
        "prefix": sys.prefix,
        "base_prefix": sys.base_prefix,
        "conda_prefix": prefix,
        "user_site": site.getusersitepackages(),
        "user_site_enabled": bool(site.ENABLE_USER_SITE),
        "path": JOB_PATH,
    }


@section
def fact_container(ask: Ask) -> dict[str, Any]:
    """Source: the files and variables by which each kind of container can be told."""
    first = read_or(at("/proc/1/environ")).split("\0")  # root's alone
    told = next((line[len("container=") :] for line in first if line.startswith("container=")), "")
    told = told or read_or(at("/run/systemd/container")) or os.environ.get("container", "")
    groups = read_or(at("/proc/1/cgroup")) + read_or(at("/proc/self/cgroup"))
    kernel = read_or(at("/proc/sys/kernel/osrelease"))
    apart = own_namespaces()
    signs = (
        ("kubernetes", "KUBERNETES_SERVICE_HOST" in os.environ, "$KUBERNETES_SERVICE_HOST"),
        ("kubernetes", os.path.isdir(at("/var/run/secrets/kubernetes.io")), "/var/run/secrets/kubernetes.io"),
        ("podman", os.path.exists(at("/run/.containerenv")), "/run/.containerenv"),
        ("docker", apart and os.path.exists(at("/.dockerenv")), "/.dockerenv"),
        ("other", os.path.isdir(at("/.singularity.d")), "/.singularity.d"),
        (told if told in ("docker", "podman", "lxc") else "other", bool(told), "container=%s" % told),
        ("kubernetes", "/kubepods" in groups, "/proc/1/cgroup names kubepods"),
        ("podman", "/libpod" in groups, "/proc/1/cgroup names libpod"),
        ("docker", "/docker" in groups or "/containerd" in groups, "/proc/1/cgroup names docker"),
        ("lxc", "/lxc" in groups, "/proc/1/cgroup names lxc"),
        ("wsl", "microsoft" in kernel.lower(), "kernel %s" % kernel),
    )
    kind, evidence = next(((kind, evidence) for kind, seen, evidence in signs if seen), ("none", ""))
    return {"kind": kind, "evidence": evidence, "capabilities": capabilities()}


def capabilities() -> int | None:
    """This process's effective capabilities as a bit field. Source: CapEff of /proc/self/status."""
    for line in read_or(at("/proc/self/status")).splitlines():
        name, _, value = line.partition(":")
        if name == "CapEff":
            return int(value.strip(), 16)
    return None
