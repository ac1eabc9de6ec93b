"""The package's own data files, read once: what NCCL and torch read from the environment, and the checks' cases.

This is the one module of the room that opens files.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files

import msgspec

from dsdoctor import yamlfile


class Variables(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`data/variables.yaml`: the environment variables of NCCL and of torch's distributed part."""

    nccl: dict[str, tuple[str, str | None]]  # name -> first version that reads it, last version (None: still read)
    renamed: dict[str, tuple[str, str]]  # old name -> the name torch gave it, the torch that reads that
    torch: tuple[str, ...]
    plugins: tuple[str, ...]  # prefixes
    not_read: tuple[str, ...]  # NCCL_ names that build scripts and images set, which nothing at run time reads
    newest: str  # the newest NCCL the table knows


def text(folder: str, name: str) -> str:
    """The text of a data file. Raises FileNotFoundError."""
    return (files("dsdoctor.checks") / folder / name).read_text(encoding="utf-8")


@cache
def variables() -> Variables:
    """The table of environment variables."""
    name = "variables.yaml"
    content = text("data", name)
    return yamlfile.convert(yamlfile.parse(content, name), Variables, name, content)


def case_names() -> tuple[str, ...]:
    """The checks that have a file of cases."""
    folder = files("dsdoctor.checks") / "cases"
    return tuple(sorted(entry.name[:-5] for entry in folder.iterdir() if entry.name.endswith(".yaml")))
