"""Hostfiles: DeepSpeed's grammar read as DeepSpeed reads it, our `key=value` words after it.

DeepSpeed takes `NAME slots=N` and ignores whatever follows on the line, so `port= user= python= workdir= ifname= gpu=`
after it leave the file usable by both. What DeepSpeed refuses is refused here; what it accepts only to fail later is
accepted with a warning.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dsdoctor.cluster import HostEntry
from dsdoctor.hosts.shown import shown
from dsdoctor.yamlfile import FileError

MAX_BYTES = 4 << 20  # a hostfile of 4 MiB names some hundred thousand hosts: it is another file
MAX_SLOTS = 4096  # DeepSpeed builds a list of this length; no host has as many GPUs
MAX_WARNINGS = 20

# DeepSpeed 0.19.8, launcher/runner.py, _parse_hostfile: searched in the stripped line, not anchored at the end.
_DEEPSPEED_LINE = re.compile(r"^(\S+)\s+slots=(\d+)")
_WORD = re.compile(r"""(?:[^\s"'\\]|\\.|"(?:[^"\\]|\\.)*"|'[^']*')+""")
_NAME = re.compile(r"(?!-)(?!\.+$)[\w.\-]{1,253}")
_USER = re.compile(r"(?!-)[\w.+@\\-]{1,128}(?<!\\)")
_PRINTABLE = re.compile(r"(?!-)[^\x00-\x1f\x7f-\x9f]+")
# Printable ASCII but / : , = and ^, which mean something to NCCL; IFNAMSIZ is 16 with the closing zero.
_IFNAME = re.compile(r"(?!-)[!-+\-.0-9;<>-\]_-~]{1,15}")

_HERE = frozenset({"localhost", "127.0.0.1", "::1"})  # no ssh is needed, as deepspeed needs none for one host
_FOREIGN = frozenset({"max_slots", "max-slots"})  # words of Open MPI's hostfiles, no slip of the pen
_ALIASES = {
    **dict.fromkeys(("type", "card", "device"), "gpu"),
    **dict.fromkeys(("nic", "iface", "interface", "if"), "ifname"),
    **dict.fromkeys(("dir", "cwd", "path", "root"), "workdir"),
    **dict.fromkeys(("login", "username", "ansible_user"), "user"),
    **dict.fromkeys(("interpreter", "python_path", "ansible_python_interpreter"), "python"),
    "ansible_port": "port",
}


@dataclass(frozen=True)
class Hostfile:
    """The hosts of a file in its order. `warnings` name file and line and end with the mend."""

    entries: tuple[HostEntry, ...]
    warnings: tuple[str, ...] = ()
    path: str = ""


def load_hostfile(path: str | Path) -> Hostfile:
    """Read a hostfile.

    Raises:
        FileError: it cannot be read, is no hostfile, or DeepSpeed would refuse it; with the line and the mend.
    """
    try:
        with Path(path).open("rb") as file:  # bounded: a pipe or a device may never end
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise FileError(path, "no such file; deepspeed would go on without it, on this machine alone") from None
    except OSError as error:
        raise FileError(path, error.strerror or str(error)) from None
    if len(raw) > MAX_BYTES:
        raise FileError(path, f"larger than {MAX_BYTES >> 20} MiB; a hostfile has one line a host")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        mend = "save it as UTF-8 (from Windows: iconv -f UTF-16 -t UTF-8)"
        raise FileError(path, f"not UTF-8 text (byte {error.start} is 0x{raw[error.start]:02x}); {mend}") from None
    return parse_hostfile(text, path)


def parse_hostfile(text: str, path: str | Path = "<hostfile>") -> Hostfile:
    """The hosts that a hostfile's text names. Raises FileError as :func:`load_hostfile` does."""
    if text.startswith("\ufeff"):
        mend = f"sed -i '1s/^\\xEF\\xBB\\xBF//' {shlex.quote(str(path))}"
        raise FileError(
            path, f"a byte order mark stands before the first host and would be part of its name; {mend}", 1
        )
    entries: dict[str, HostEntry] = {}
    warnings: list[str] = []
    for number, raw in enumerate(re.split(r"\r\n|\r|\n", text), 1):  # the line ends of Python's text files
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        entry, said = _parse_line(line, number, path)
        if entry.name in entries:
            first = f"first in line {entries[entry.name].line}"
            raise FileError(
                path, f"host {entry.name} is named twice, {first}; keep one line with all its slots", number
            )
        entries[entry.name] = entry
        warnings += [f"{path}:{number}: {sentence}" for sentence in said]
    if not entries:
        raise FileError(path, "names no host; wanted is one line a host, as in: worker-1 slots=8")
    if len(warnings) > MAX_WARNINGS:
        warnings[MAX_WARNINGS:] = [f"{path}: {len(warnings) - MAX_WARNINGS} more warnings of this kind"]
    return Hostfile(tuple(entries.values()), tuple(warnings), str(path))


def local_entry(slots: int) -> HostEntry:
    """This machine as the only host: what a command without a hostfile works on."""
    return HostEntry(name="localhost", slots=slots, local=True)


def _parse_line(line: str, number: int, path: str | Path) -> tuple[HostEntry, list[str]]:
    """One host and what is worth saying about its line."""
    match = _DEEPSPEED_LINE.search(line)
    if match is None:
        raise FileError(path, f"{shown(line)} is no host line; {_mend(line)}", number)
    written, digits = match[1], match[2]
    slots = int(digits) if len(digits) <= 18 else MAX_SLOTS + 1
    if slots > MAX_SLOTS:
        raise FileError(path, f"slots={shown(digits, 20)} is more than any host has (at most {MAX_SLOTS})", number)
    entry, warnings = _parse_name(written, number, path)
    entry = replace(entry, slots=slots)
    if slots == 0:
        warnings.append(f"{entry.name} has slots=0: no process will run there; put # before the line to leave it out")
    rest = line[match.end() :]
    if rest and not rest[0].isspace() and rest[0] != "#":
        glued = rest.split()[0]
        rest = rest[len(glued) :]
        warnings.append(f"slots={shown(digits + glued)} is read as {slots}; put a space after the number")
    settings: dict[str, Any] = {}
    for key, value, word in _words(rest, number, path, warnings):
        if key in settings:
            raise FileError(path, f"{key}= is given twice for {entry.name}; keep one", number)
        settings[key] = _value(key, value, word, number, path)
    for key in ("user", "port"):
        before = getattr(entry, key)
        if before is not None and settings.get(key, before) != before:
            message = f"{shown(written)} says {key} {before}, {key}={settings[key]} says another; keep one"
            raise FileError(path, message, number)
    entry = replace(entry, **settings)
    return replace(entry, local=entry.name in _HERE and entry.user is None and entry.port is None), warnings


def _parse_name(written: str, number: int, path: str | Path) -> tuple[HostEntry, list[str]]:
    """Take `user@`, `:port` and brackets off a host's name; a name that no host can have is refused."""
    warnings: list[str] = []
    user, at, name = written.rpartition("@")  # at the last @, as ssh does
    if at and not _USER.fullmatch(user):
        raise FileError(path, f"{shown(user)} in {shown(written)} is no user name; wanted: user@host", number)
    port: int | None = None
    bracketed = re.fullmatch(r"\[(?P<name>[^\[\]]*)\](?::(?P<port>\d+))?", name)
    plain = re.fullmatch(r"(?P<name>[^:]+):(?P<port>\d+)", name)
    split = bracketed or plain
    if split:
        name = split["name"]
    if split and split["port"]:
        port = _port(split["port"])
        if port is None:
            raise FileError(path, f"{shown(written)}: a port is a number from 1 to 65535", number)
        mend = f"{written.rpartition(':')[0]} slots=… port={port}"
        warnings.append(f"deepspeed takes {shown(written)} for a host's name and cannot reach it; write {mend}")
    if _is_ipv6(name):
        warnings.append(f"deepspeed's --include and pdsh break on the colons of {name}; give the host a name")
    elif bracketed or not _NAME.fullmatch(name):
        wanted = "letters, digits, dot, dash (not first) and underscore, at most 253"
        raise FileError(path, f"{shown(written)} is no host name; wanted: {wanted}", number)
    return HostEntry(name=name, slots=0, user=user or None, port=port, line=number), warnings


def _is_ipv6(name: str) -> bool:
    address, percent, scope = name.partition("%")
    try:
        ipaddress.IPv6Address(address)
    except ValueError:
        return False
    return _IFNAME.fullmatch(scope) is not None if percent else True


def _words(rest: str, number: int, path: str | Path, warnings: list[str]) -> Iterator[tuple[str, str, str]]:
    """Our `key=value` words behind `slots=N` up to a comment; others, which DeepSpeed ignores, become warnings."""
    position = 0
    while True:
        position = len(rest) - len(rest[position:].lstrip())
        if position >= len(rest) or rest[position] == "#":
            return
        if len(warnings) > MAX_WARNINGS:
            warnings.append(f"nothing from {shown(rest[position:])} on is read: too many unknown words")
            return
        match = _WORD.match(rest, position)
        end = match.end() if match else position
        if end < len(rest) and not rest[end].isspace():
            word = rest[position:].split(maxsplit=1)[0]
            if word.partition("=")[0] in _KEYS:
                raise FileError(path, f"the quote in {shown(word)} is not closed", number)
            warnings.append(f"nothing from {shown(word)} on is read: a quote is not closed")
            return
        word, position = rest[position:end], end
        key, equals, value = "".join(shlex.split(word)).partition("=")
        if equals and key in _KEYS:
            yield key, value, word
        elif key.partition("=")[0] not in _FOREIGN:
            warnings.append(_unknown(key, equals + value, word))


def _unknown(key: str, value: str, word: str) -> str:
    """What to say of a word that nobody reads."""
    lower = key.lower()
    close = [_ALIASES[lower]] if lower in _ALIASES else difflib.get_close_matches(lower, _KEYS, n=1)
    if close and value:
        return f"{shown(word)} is not read; did you mean {close[0]}{value}?"
    return f"{shown(word)} is not read; known words: {', '.join(f'{key}=' for key in _KEYS)}"


def _value(key: str, value: str, word: str, number: int, path: str | Path) -> Any:
    """The typed value of one of our words."""
    parse, wanted = _KEYS[key]
    parsed = parse(value)
    if parsed is None:
        raise FileError(path, f"{shown(word)}: {key}= wants {wanted}", number)
    return parsed


def _port(value: str) -> int | None:
    return int(value) if re.fullmatch(r"[0-9]{1,5}", value) and 0 < int(value) < 65536 else None


def _matching(pattern: re.Pattern[str]) -> Callable[[str], str | None]:
    return lambda value: value if pattern.fullmatch(value) else None


_KEYS: dict[str, tuple[Callable[[str], Any], str]] = {
    "port": (_port, "a number from 1 to 65535"),
    "user": (_matching(_USER), "a user name"),
    "python": (_matching(_PRINTABLE), "the path or name of a Python on that host"),
    "workdir": (_matching(_PRINTABLE), "a folder on that host"),
    "ifname": (_matching(_IFNAME), "the name of one network interface, at most 15 characters"),
    "gpu": (_matching(_PRINTABLE), "a label for the kind of GPU"),
}


def _mend(line: str) -> str:
    """The line as DeepSpeed wants it, as far as it can be guessed."""
    name, *rest = line.split()
    if name.lower().startswith("slots"):
        return "the host's name is missing; wanted: NAME slots=N"
    slots = re.search(r"(?<![\w-])slots\s*[=:]\s*(\d+)", " ".join(rest), re.IGNORECASE)
    if slots:
        before, after = " ".join(rest)[: slots.start()].split(), " ".join(rest)[slots.end() :].split()
        fixed = " ".join([name, f"slots={slots[1]}", *before, *after])
        return f"slots= follows the name, with no space around '='; write: {shown(fixed, 200)}"
    return f"wanted: {shown(f'{name} slots=N', 200)} with N the number of its GPUs"
