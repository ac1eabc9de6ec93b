"""Reading the host's files and folders; what is remembered of them."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

ROOT = ""  # put before /proc, /sys, /etc ...: the tests' only seam
MEMO: dict[str, Any] = {}


class ProbeError(Exception):
    """Something that could not be learnt, said in a sentence."""


def at(path: str) -> str:
    """The path of a system file."""
    return ROOT + path


def raw(path: str, limit: int = 1 << 20) -> bytes:
    """The bytes of a regular file, at most `limit` of them. Raises OSError."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a FIFO in a file's place does not block
    try:
        size = 1 << 14
        data = os.read(handle, min(limit, size))
        chunks = []
        while data and limit > 0:
            chunks.append(data)
            limit -= len(data)
            if len(data) >= size:
                size = 1 << 20  # asked of a file in /proc that has no more, the kernel would clear so much for nothing
            data = os.read(handle, min(limit, size)) if limit > 0 else b""
    finally:
        os.close(handle)
    return b"".join(chunks)


def raw_or(path: str, limit: int = 1 << 20) -> bytes:
    """The bytes of a file, none when it cannot be read."""
    try:
        return raw(path, limit)
    except (OSError, ValueError):
        return b""


def read(path: str, limit: int = 1 << 20) -> str:
    """The text of a regular file, at most `limit` bytes of it; any bytes are text. Raises OSError."""
    return raw(path, limit).decode("utf-8", "surrogateescape")


def read_or(path: str, default: str = "", limit: int = 1 << 20) -> str:
    """The text of a file without the blanks at its ends, or `default` when it cannot be read."""
    try:
        return read(path, limit).strip()
    except (OSError, ValueError):
        return default


def entries(path: str) -> list[str]:
    """The names in a folder, sorted; none when it cannot be read."""
    try:
        return sorted(os.listdir(path))
    except (OSError, ValueError):
        return []


def link_target(path: str) -> str:
    """Where a symbolic link points, or nothing."""
    try:
        return os.readlink(path)
    except OSError:
        return ""


def number(text: Any) -> int | None:
    """The integer a text holds, or None."""
    try:
        return int(str(text).strip(), 10)
    except ValueError:
        return None


def unique(items: Iterable[str]) -> list[str]:
    """The items in their order, each once."""
    return list(dict.fromkeys(items))


SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")


def which(name: str, extra: Sequence[str] = ()) -> str | None:
    """The program that the PATH finds, else one in the `extra` folders: a user's PATH often lacks the sbin ones."""
    for folder in os.environ.get("PATH", os.defpath).split(os.pathsep) + list(extra):
        path = (folder or ".") + "/" + name
        if os.access(path, os.X_OK) and os.path.isfile(path):  # in this order: most folders do not have it
            return os.path.join(folder or ".", name)
    return None
