"""The keys of `.dsdoctor.yaml`. A module of its own, since it takes the YAML reader, which few calls need."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import msgspec

from dsdoctor.hosts.transport import TransportKind
from dsdoctor.yamlfile import convert, parse, read_text


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, rename="kebab"):
    """What may be set; the names are those of the options, and paths are taken from the file's folder."""

    hostfile: str | None = None
    include: str | None = None
    exclude: str | None = None
    transport: TransportKind | None = None
    python: str | None = None
    timeout: float | None = None
    select: tuple[str, ...] | None = None
    ignore: tuple[str, ...] | None = None
    fail_on: Literal["error", "warning", "info"] | None = None
    baseline: str | None = None
    rules: str | None = None


PATHS = ("hostfile", "baseline", "rules")


def read_settings(path: Path) -> dict[str, Any]:
    """The settings that a file has, by the names of the commands' parameters. Raises FileError."""
    text = read_text(path)
    settings = convert(parse(text, path) or {}, Settings, path, text)
    given = {name: value for name in Settings.__struct_fields__ if (value := getattr(settings, name)) is not None}
    for name in PATHS:
        if name in given:
            given[name] = str(path.parent / given[name])
    return given
