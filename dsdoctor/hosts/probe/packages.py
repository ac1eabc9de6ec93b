"""The Python packages that the job's interpreter finds."""

from __future__ import annotations

import os
import sys

from .files import MEMO, entries, read_or
from .question import Ask, section

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

JOB_PATH = [str(entry) for entry in sys.path if entry != ""]  # `python -` puts the working directory first


def site_folders() -> list[str]:
    """The folders of sys.path, each once, whatever links lead to it."""
    if "folders" not in MEMO:
        real: dict[str, str] = {}
        for path in JOB_PATH:
            if path and "\0" not in path and os.path.isdir(path):
                real.setdefault(os.path.realpath(path), path)
        MEMO["folders"] = list(real.values())
    return list(MEMO["folders"])


def distributions() -> list[dict[str, Any]]:
    """Every installed distribution in the order of sys.path.

    Source: the folders' names; METADATA and PKG-INFO where a name does not say it all. A standard
    `NAME-VERSION.dist-info` does, which spares reading every METADATA. A folder without METADATA is what a broken
    (un)installation left: `leftover`.
    """
    if "distributions" in MEMO:
        return list(MEMO["distributions"])
    found = []
    for folder in site_folders():
        for name in entries(folder):
            if name.endswith(".dist-info"):
                found.append(wheel_distribution(folder, name))
            elif name.endswith(".egg-info"):
                found.append(egg_distribution(folder, os.path.join(folder, name)))
        if os.path.isdir(folder + "/EGG-INFO"):
            found.append(egg_distribution(os.path.dirname(folder), folder + "/EGG-INFO"))
    MEMO["distributions"] = found
    return found


def wheel_distribution(folder: str, name: str) -> dict[str, Any]:
    """A distribution out of its .dist-info folder."""
    info = os.path.join(folder, name)
    whole = os.path.isfile(info + "/METADATA") and not name.startswith("~")
    stem = name[: -len(".dist-info")]
    fields = standard(stem) or (metadata(info + "/METADATA") if whole else {})
    editable = whole and '"editable":true' in "".join(read_or(info + "/direct_url.json").split())
    return described(fields, stem, folder, info, whole, editable)


def standard(stem: str) -> dict[str, str]:
    """Name and Version out of `NAME-VERSION` where it is written by the book: the name has no other dash."""
    name, dash, version = stem.partition("-")
    plain = name.isascii() and name[:1].isalnum() and name.replace(".", "").replace("_", "").isalnum()
    numbered = version[:1].isdigit() and "-" not in version
    return {"name": name, "version": version} if dash and plain and numbered else {}


def canonical(name: str) -> str:
    """A distribution's name as they are compared: small letters, one dash for each run of dashes, dots and the like."""
    name = name.replace("_", "-").replace(".", "-").lower()
    while "--" in name:
        name = name.replace("--", "-")
    return name


def egg_distribution(folder: str, info: str) -> dict[str, Any]:
    """A distribution out of an .egg-info file or folder."""
    path = info + "/PKG-INFO" if os.path.isdir(info) else info
    fields = metadata(path)
    name = os.path.basename(info).partition(".egg")[0]
    # A source tree's has no version in its name: `setup.py develop` links to it from easy-install.pth.
    tree = "-" not in name and os.path.basename(folder) not in ("site-packages", "dist-packages")
    return described(fields, name, folder, info, bool(fields), tree and not info.endswith("/EGG-INFO"))


def described(
    fields: dict[str, str], fallback: str, folder: str, info: str, whole: bool, editable: bool
) -> dict[str, Any]:
    """One distribution as the sections use it."""
    return {
        "name": canonical(fields.get("name") or fallback),
        "version": fields.get("version", ""),
        "location": folder,
        "editable": editable,
        "info": info,
        "leftover": not whole,
    }


def metadata(path: str) -> dict[str, str]:
    """Name and Version out of the headers of a METADATA or PKG-INFO file."""
    fields: dict[str, str] = {}
    for line in read_or(path, limit=1 << 16).splitlines():
        name, colon, value = line.partition(":")
        if not colon or len(fields) == 2:
            break
        if name.lower() in ("name", "version"):
            fields.setdefault(name.lower(), value.strip())
    return fields


def public(distribution: dict[str, Any]) -> dict[str, Any]:
    """The part of a distribution that is reported."""
    return {key: distribution[key] for key in ("name", "version", "location", "editable")}


@section
def fact_packages(ask: Ask) -> dict[str, Any]:
    """Source: the .dist-info and .egg-info entries of the folders of sys.path, as importlib.metadata finds them."""
    return {
        "distributions": [public(item) for item in distributions() if not item["leftover"]],
        "leftovers": [item["info"] for item in distributions() if item["leftover"]],
    }


def package_folder(name: str) -> str | None:
    """The folder that `import NAME` would take, or None."""
    for folder in site_folders():
        path = os.path.join(folder, name)
        if os.path.isfile(path + "/__init__.py"):
            return path
    return None
