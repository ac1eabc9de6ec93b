"""Compilers and build tools."""

from __future__ import annotations

import os
import sys

from .elf import Library
from .files import MEMO, ProbeError, raw_or, which
from .programs import Program, run
from .question import Ask, section

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

TOOLS = ("gcc", "g++", "ninja", "make", "nvcc")
OF_ANY_VERSION = ("ninja", "make")  # nothing depends on theirs, and starting a program costs a host 1.5 ms
# What tells gcc of other folders than its usual ones. Source: gcc(1), ENVIRONMENT.
OTHER_FOLDERS = ("CPATH", "C_INCLUDE_PATH", "LIBRARY_PATH", "COMPILER_PATH", "GCC_EXEC_PREFIX")


@section
def fact_compilers(ask: Ask) -> dict[str, Any]:
    """Source: the PATH, CXX, `--version` of each program, Python's folder of headers, the C compiler or its folders."""
    name = ask.variables.get("CXX") or "c++"
    words = [word for word in name.split() if not word.startswith("-")] or ["c++"]
    compiler = next((word for word in words if "++" in word or "clang" in word), words[0])  # after ccache
    versioned = [name for name in (*TOOLS, compiler) if name not in OF_ANY_VERSION]
    ask_versions(path for path in map(program_path, versioned) if path)
    cxx = tool(compiler)
    library, header = libaio(ask)
    return {
        "tools": {name: tool(name) for name in TOOLS},
        "python_headers": python_headers(),
        "cxx": cxx,
        "cxx_name": name,
        "cxx_clang": bool(cxx and is_clang(version_text(cxx["path"]))),
        "libaio": library,
        "libaio_header": header,
    }


def python_headers() -> bool | None:
    """Whether Python.h is where this interpreter's headers belong; None where that cannot be told."""
    usual = "%s/include/python%d.%d%s" % (sys.base_prefix, *sys.version_info[:2], getattr(sys, "abiflags", ""))
    if os.path.isfile(usual + "/Python.h"):
        return True
    import sysconfig  # which reads a large table

    include = sysconfig.get_path("include")
    return os.path.isfile(include + "/Python.h") if include else None


def libaio(ask: Ask) -> tuple[bool | None, bool | None]:
    """Whether the linker finds libaio.so and the compiler libaio.h; None where there is no C compiler to ask."""
    words = (ask.variables.get("CC") or "gcc").split()
    path = which(words[-1]) or which("gcc") or which("cc")
    if path is None:
        return None, None
    flags = [flag for name in ("CFLAGS", "CPPFLAGS") for flag in ask.variables.get(name, "").split()]
    include = [flag for flag in flags if flag.startswith("-I")]
    folders = [flag[2:] for flag in ask.variables.get("LDFLAGS", "").split() if flag.startswith("-L")]
    given = any(os.path.isfile(folder + "/libaio.so") for folder in folders)
    if not include and not any(name in ask.variables for name in OTHER_FOLDERS) and is_own_gcc(path):
        return given or gcc_has("libaio.so"), gcc_has("libaio.h")
    try:
        found = run([path, "-print-file-name=libaio.so"])[1].strip()
        status = run([path, *include, "-E", "-x", "c", "-o", os.devnull, "-"], text="#include <libaio.h>\n")[0]
    except ProbeError:
        return None, None
    return os.path.isabs(found) or given, status == 0


def is_own_gcc(path: str, kinds: tuple[str, ...] = ("gcc", "cc")) -> bool:
    """Whether a compiler is the distribution's gcc itself: a program and not a script around one.

    /usr/bin/gcc is a link to /usr/bin/x86_64-linux-gnu-gcc-12 or the like, or the program.
    """
    folder, name = os.path.split(os.path.realpath(path))
    return folder == "/usr/bin" and kind_of(name) in kinds and raw_or("%s/%s" % (folder, name), 4) == b"\x7fELF"


def own_version(path: str) -> str:
    """What a distribution's gcc or g++ says of its version, out of its bytes; nothing for one that is not so built.

    `--version` prints the packager's words and the version, which stand side by side among the texts of the program,
    the version first: "12.2.0", "(Debian 12.2.0-14) ". Source: gcc/gcc.cc and gcc/version.cc; seen so in gcc 12.2.0 of
    Debian 12. A gcc-12 whose version were not 12's is asked.
    """
    if not is_own_gcc(path, ("gcc", "g++", "cc", "c++")):
        return ""
    real = os.path.realpath(path)
    major = real.rpartition("-")[2]
    try:
        library = Library(real)
    except (OSError, ValueError):
        return ""
    try:
        for place in library.places(b") \0"):
            before, _, packager = library.bytes[max(0, place - 160) : place].rpartition(b"\0")
            number = before.rpartition(b"\0")[2].decode("latin-1")
            if packager[:1] == b"(" and number and dotted(number, 0) == number:
                same = not major.isdigit() or number.partition(".")[0] == major
                return "gcc %s) %s\n" % (packager.decode("latin-1"), number) if same else ""
        return ""
    finally:
        library.close()


def kind_of(name: str) -> str:
    """The "g++" in a compiler's name like "x86_64-linux-gnu-g++-12"."""
    parts = name.split("-")
    if len(parts) > 1 and parts[-1].replace(".", "").isdigit():
        parts.pop()
    return parts[-1]


def gcc_has(name: str) -> bool:
    """Whether a distribution's gcc finds a header or a library."""
    triplet = os.uname().machine + "-linux-gnu"
    folders: tuple[str, ...]
    if name.endswith(".h"):
        folders = ("/usr/local/include", "/usr/include/" + triplet, "/usr/include")
    elif os.path.isdir("/usr/lib/" + triplet):
        folders = ("/usr/lib/" + triplet, "/lib/" + triplet, "/usr/lib", "/lib")
    else:
        folders = ("/usr/lib64", "/lib64", "/usr/lib", "/lib")
    return any(os.path.isfile("%s/%s" % (folder, name)) for folder in folders)


def program_path(name: str) -> str | None:
    """The program of that name on the PATH, or at that path."""
    if "/" not in name:
        return which(name)
    return name if os.access(name, os.X_OK) and os.path.isfile(name) else None


def tool(name: str) -> dict[str, str] | None:
    """A program on the PATH (or at a path) with its version, which is empty when it does not run or is not asked."""
    path = program_path(name)
    if path is None:
        return None
    return {"path": path, "version": "" if name in OF_ANY_VERSION else program_version(version_text(path))}


def version_text(path: str) -> str:
    """What a program prints for `--version`; nothing when it does not run."""
    ask_versions([path])
    return str(MEMO["versions"][same_program(path)])


def ask_versions(paths: Iterable[str]) -> None:
    """Ask programs for their version, all at the same time, each once; c++ and g++ are one where links say so.

    A distribution's gcc is read and not run: starting programs is half of what a host's examination costs it.
    """
    asked: dict[str, str] = MEMO.setdefault("versions", {})
    running: dict[str, Program] = {}
    for path in paths:
        key = same_program(path)
        if key in asked or key in running:
            continue
        told = own_version(path)
        if told:
            asked[key] = told
            continue
        try:
            running[key] = Program([path, "--version"])
        except ProbeError:
            asked[key] = ""
    for key, program in running.items():
        try:
            asked[key] = program.answer()[1]
        except ProbeError:
            asked[key] = ""


def same_program(path: str) -> str:
    """The file that a compiler's name leads to, which says the same by each of its names; another program's path.

    What stands in front of a compiler, as ccache does, says by each name what the compiler of that name says.
    """
    real = os.path.realpath(path)
    return real if kind_of(os.path.basename(real)) in ("gcc", "g++", "clang", "clang++") else path


def is_clang(output: str) -> bool:
    """Whether a compiler's answer has the word in it."""
    return "clang" in "".join(c if c.isalnum() or c == "_" else " " for c in output).split()


def program_version(output: str) -> str:
    """The version in a program's answer: nvcc's "release 12.6", else the first number with a point in the first line.

    What stands in brackets is the packager's: "gcc (Debian 12.2.0-14) 12.2.0".
    """
    for part in output.split("release ")[1:]:
        version = dotted(part, 0)
        if version:
            return ".".join(version.split(".")[:2])
    line, bracket = (output.splitlines() or [""])[0], 0
    while bracket >= 0:  # without what stands in brackets
        bracket = line.find("(")
        end = line.find(")", bracket)
        bracket = bracket if end >= 0 else -1
        line = line[:bracket] + " " + line[end + 1 :] if bracket >= 0 else line
    for place, letter in enumerate(line):
        if letter.isdigit() and not (place and (line[place - 1].isalnum() or line[place - 1] in "_.")):
            version = dotted(line, place)
            if version:
                return version
    return ""


def dotted(text: str, place: int) -> str:
    """The numbers with points between them that stand at a place, at least two; nothing without."""
    end = place
    while end < len(text) and (text[end].isdigit() or text[end] == "."):
        end += 1
    parts = text[place:end].split(".")
    if "" in parts:
        parts = parts[: parts.index("")]
    return ".".join(parts) if len(parts) > 1 else ""
