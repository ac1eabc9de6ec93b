"""Compilers and build tools."""

from __future__ import annotations

import os
import re

from .files import MEMO, ProbeError, which
from .programs import run
from .question import Ask, section

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


@section
def fact_compilers(ask: Ask) -> dict[str, Any]:
    """Source: the PATH, CXX, `--version` of each program, sysconfig for Python.h, the C compiler for libaio."""
    import sysconfig

    include = sysconfig.get_path("include")
    name = ask.variables.get("CXX") or "c++"
    words = [word for word in name.split() if not word.startswith("-")] or ["c++"]
    compiler = next((word for word in words if re.search(r"\+\+|clang", word)), words[0])  # after ccache
    cxx = tool(compiler)
    library, header = libaio(ask)
    return {
        "tools": {name: tool(name) for name in ("gcc", "g++", "ninja", "make", "nvcc")},
        "python_headers": os.path.isfile(include + "/Python.h") if include else None,
        "cxx": cxx,
        "cxx_name": name,
        "cxx_clang": bool(cxx and re.search(r"\bclang\b", version_text(cxx["path"]))),
        "libaio": library,
        "libaio_header": header,
    }


def libaio(ask: Ask) -> tuple[bool | None, bool | None]:
    """Whether the linker finds libaio.so and the compiler libaio.h; None where there is no C compiler to ask."""
    words = (ask.variables.get("CC") or "gcc").split()
    path = which(words[-1]) or which("gcc") or which("cc")
    if path is None:
        return None, None
    flags = [flag for name in ("CFLAGS", "CPPFLAGS") for flag in ask.variables.get(name, "").split()]
    folders = [flag[2:] for flag in ask.variables.get("LDFLAGS", "").split() if flag.startswith("-L")]
    try:
        found = run([path, "-print-file-name=libaio.so"])[1].strip()
        include = [flag for flag in flags if flag.startswith("-I")]
        status = run([path] + include + ["-E", "-x", "c", "-o", os.devnull, "-"], text="#include <libaio.h>\n")[0]
    except ProbeError:
        return None, None
    return os.path.isabs(found) or any(os.path.isfile(folder + "/libaio.so") for folder in folders), status == 0


def tool(name: str) -> dict[str, str] | None:
    """A program on the PATH (or at a path) with its version; the version is empty when it does not run."""
    path = which(name) if "/" not in name else name if os.access(name, os.X_OK) and os.path.isfile(name) else None
    return {"path": path, "version": program_version(version_text(path))} if path else None


def version_text(path: str) -> str:
    """What a program prints for `--version`, asked once; nothing when it does not run."""
    asked: dict[str, str] = MEMO.setdefault("versions", {})
    if path not in asked:
        try:
            asked[path] = run([path, "--version"])[1]
        except ProbeError:
            asked[path] = ""
    return asked[path]


def program_version(output: str) -> str:
    """The version in a program's answer: nvcc's "release 12.6", else the first number with a point in the first line.

    What stands in brackets is the packager's: "gcc (Debian 12.2.0-14) 12.2.0".
    """
    first = re.sub(r"\([^)]*\)", " ", (output.splitlines() or [""])[0])
    match = re.search(r"release (\d+\.\d+)", output) or re.search(r"(?<![\w.])(\d+(?:\.\d+)+)", first)
    return match.group(1) if match else ""
