"""Snapshots: the facts of hosts stored as files, one JSON a host, and read again to be judged elsewhere or later."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

import msgspec

from dsdoctor.facts import SCHEMA, FactUnavailable, HostFacts, Snapshot
from dsdoctor.yamlfile import FileError

SIZE_LIMIT = 64 << 20  # bytes; a host's facts take some 50 kB
SAVE_AGAIN = "save the facts again with: dsdoctor check --save-facts DIR"


def save(facts: Mapping[str, HostFacts], directory: str | Path) -> tuple[Path, ...]:
    """Write one file a host into a folder, which is made if need be, and return the files in the order of the hosts.

    A file is there whole or not at all; a host's older file is replaced. The origin says what it was recorded on.

    Raises:
        FileError: the folder or a file in it cannot be written.
    """
    folder = Path(directory)
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, host in facts.items():
            path = folder / file_name(name)
            snapshot = msgspec.structs.replace(host.snapshot, host=name, origin=origin(host))
            _write(path, msgspec.json.format(msgspec.json.encode(snapshot), indent=1) + b"\n")
            written.append(path)
    except OSError as error:
        raise FileError(error.filename or folder, error.strerror or str(error)) from None
    return tuple(written)


def load(path: str | Path) -> dict[str, HostFacts]:
    """The facts by host name in a snapshot file, or in all `*.json` files of a folder in the order of their names.

    Raises:
        FileError: nothing there, not a snapshot, one of a newer dsdoctor, or two of one host.
    """
    place = Path(path)
    if not place.exists():
        raise FileError(place, "there is no such file or folder")
    files = sorted(place.glob("*.json")) if place.is_dir() else [place]
    if not files:
        raise FileError(place, f"no snapshot (*.json) in this folder; {SAVE_AGAIN}")
    found: dict[str, HostFacts] = {}
    sources: dict[str, Path] = {}
    for file in files:
        snapshot = read(file)
        if snapshot.host in found:
            raise FileError(file, f"a second snapshot of host {snapshot.host}; the first is {sources[snapshot.host]}")
        found[snapshot.host], sources[snapshot.host] = HostFacts(snapshot), file
    return found


def read(path: Path) -> Snapshot:
    """The snapshot in a file. Raises FileError with the mend."""
    try:
        if path.stat().st_size > SIZE_LIMIT:
            raise FileError(path, f"larger than {SIZE_LIMIT >> 20} MiB: not a snapshot")
        raw = msgspec.json.decode(path.read_bytes())
    except OSError as error:
        raise FileError(path, error.strerror or str(error)) from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise FileError(path, f"not JSON: {error}; {SAVE_AGAIN}") from None
    schema = raw.get("schema") if isinstance(raw, dict) else None
    family, _, version = str(schema).partition("/")
    known_family, _, known_version = SCHEMA.partition("/")
    if family != known_family:
        shown = f"its schema is {schema!r}" if schema else "it names no schema"
        raise FileError(path, f"not a snapshot of facts: {shown}, {SCHEMA!r} is wanted; {SAVE_AGAIN}")
    if version != known_version:
        age = "a newer" if version.isdecimal() and int(version) > int(known_version) else "another"
        told = f"made by {age} dsdoctor: its schema is {schema}, this one reads {SCHEMA}"
        raise FileError(path, f"{told}; upgrade, or {SAVE_AGAIN}")
    try:
        return msgspec.convert(raw, Snapshot)
    except msgspec.ValidationError as error:
        raise FileError(path, f"not in the form of {SCHEMA}: {error}; {SAVE_AGAIN}") from None


def redact(facts: Mapping[str, HostFacts]) -> dict[str, HostFacts]:
    """The same facts without user names, host names, addresses, hardware ids and secrets, by the hosts' placeholders.

    Equal things stay equal over all hosts, and addresses of one network stay in one network.
    """
    from dsdoctor.hosts.redaction import Redaction

    redaction = Redaction([host.snapshot for host in facts.values()])
    redacted: dict[str, HostFacts] = {}
    for host in facts.values():
        snapshot = redaction.snapshot(host.snapshot)
        if snapshot.host in redacted:  # names that differ by case alone
            snapshot = msgspec.structs.replace(snapshot, host=f"{snapshot.host}-{len(redacted) + 1}")
        redacted[snapshot.host] = HostFacts(snapshot)
    return redacted


def file_name(host: str) -> str:
    """A file name for a host's snapshot: the host's name, with what file systems or shells would stumble over coded."""
    return re.sub(r"^[.-]", lambda match: f"%{ord(match[0]):02X}", quote(host, safe="@,+=")) + ".json"


def origin(host: HostFacts) -> str:
    """Where facts come from: what they say already, else the kind of machine and the day they were recorded on."""
    said = host.snapshot.origin
    if " on " in said or said.startswith("composed"):
        return said
    words = [_system(host), _gpus(host), _torch(host), host.snapshot.recorded_at[:10]]
    return f"{said or 'recorded'} on " + ", ".join(word for word in words if word)


def _system(host: HostFacts) -> str:
    try:
        return f"{host.os.distribution or 'Linux'}, {host.os.machine}"
    except FactUnavailable:
        return "an unknown system"


def _gpus(host: HostFacts) -> str:
    try:
        names = [gpu.name for gpu in host.gpu.gpus if gpu.name]
    except FactUnavailable:
        return ""
    kinds = [f"{names.count(name)} x {name}" for name in dict.fromkeys(names)]
    return " and ".join(kinds) or "no GPU seen"


def _torch(host: HostFacts) -> str:
    try:
        version = host.torch.version
    except FactUnavailable:
        return ""
    return f"torch {version}" if version else "no torch"


def _write(path: Path, data: bytes) -> None:
    """Write a file beside its place and move it there once it is whole on the disk."""
    temporary = path.with_name(f".{path.name[:200]}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
