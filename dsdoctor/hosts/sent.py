r"""Programs that are sent to hosts: a package of modules as one blob, read from standard input, nothing written there.

    argv = [python, "-u", "-c", BOOT, *arguments]
    stdin = pack("dsdoctor.hosts.probe", entry=("answer", "main"), needs="the probe", refusal='{"error": %s}\n')

On the host the package is called `sent_probe`, its modules import each other relatively and are loaded when they are
first imported; `main(arguments, path)` gets the arguments and `sys.path` as the interpreter came up with it. Beside
the text of the modules goes their code as this Python compiled it: a host with the same Python takes that and spares
compiling, any other takes the text. Both came over the same line, so neither is to be trusted less.
"""

from __future__ import annotations

import functools
import marshal
import sys
import zlib
from collections.abc import Iterator
from importlib import resources
from importlib.abc import InspectLoader
from importlib.util import MAGIC_NUMBER, find_spec
from types import CodeType

from dsdoctor.hosts.slim_code import slim

# What comes first on standard input, behind a line with its length, is run; `-u -` would read it a byte a system call.
BOOT = (
    "import sys;sys.path[:]=filter(None,sys.path);"  # a queue.py in the home must not hide the library's
    'b=getattr(sys.stdin,"buffer",sys.stdin);exec(compile(b.read(int(b.readline())),"dsdoctor","exec"))'
)
OLDEST = (3, 8)
ANOTHER = "is another Python than it was"  # what a program without its source says where its code does not fit
LEVEL = 6  # of zlib; 9 makes the probe 1 % smaller and takes four times as long


def framed(text: bytes) -> bytes:
    """A program of one file as BOOT takes it."""
    return b"%d\n%s" % (len(text), text)


@functools.cache
def pack(package: str, *, entry: tuple[str, str], needs: str, refusal: str, source: bool = True) -> bytes:
    """A package as BOOT takes it; what the program itself reads from standard input may follow.

    `entry` is the module and the function that is called. A Python older than 3.8, or one with a broken library,
    prints `refusal` with the reason in it as a JSON string, in the place of `%s`; `needs` is what the reason calls the
    program ("the probe"). Without `source` it is a third smaller, for a host that is known to have this very Python;
    another refuses it with ANOTHER.
    """
    name = package.rpartition(".")[2]
    code, room, told = _parts(package)
    told = told if source else b""
    order = {
        "name": f"sent_{name}",
        "folder": package.replace(".", "/"),
        "entry": entry,
        "needs": needs,
        "oldest": OLDEST,
        "refusal": refusal,
        "another": ANOTHER,
        "tag": sys.implementation.cache_tag,
        "magic": MAGIC_NUMBER,
        "sizes": (len(code), len(told)),
        "room": room,  # one buffer of that size, where growing ones would be filled and copied
    }
    first = resources.files("dsdoctor.hosts").joinpath("arriving.py").read_text("ascii")
    return framed(f"{first}\n\narrive({order!r})\n".encode("ascii")) + code + told


@functools.cache
def _parts(package: str) -> tuple[bytes, int, bytes]:
    """A package's code packed, the room that it takes when it is not, and its text packed."""
    folder = package.replace(".", "/")
    texts = dict(_texts(package))
    codes = {
        stem: _code(package if stem == "__init__" else f"{package}.{stem}", text, f"{folder}/{stem}.py")
        for stem, text in texts.items()
    }
    plain = marshal.dumps(codes)
    # The second version of the format is any Python's.
    return zlib.compress(plain, LEVEL), len(plain), zlib.compress(marshal.dumps(texts, 2), LEVEL)


def _texts(package: str) -> Iterator[tuple[str, str]]:
    """The modules of a package by name, with their text."""
    for file in sorted(resources.files(package).iterdir(), key=lambda file: file.name):
        if file.name.endswith(".py"):
            yield file.name[: -len(".py")], file.read_text("utf-8")


def _code(module: str, text: str, place: str) -> bytes:
    """A module's code, out of the cache that Python keeps of it where there is one, with no path of this machine."""
    spec = find_spec(module)
    code: CodeType | None = None
    if spec is not None and isinstance(spec.loader, InspectLoader):
        code = spec.loader.get_code(module)
    return marshal.dumps(slim(code or compile(text, place, "exec", dont_inherit=True), place))
