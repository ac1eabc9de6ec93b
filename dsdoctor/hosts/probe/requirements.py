"""What packages ask for."""

from __future__ import annotations

import os

from .files import raw_or, read_or
from .packages import canonical, distributions
from .question import Ask, section

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

REQUIREMENTS = 200  # of one distribution
# What a program on transformers or accelerate needs besides them, depending on what it uses of them.
EXTRAS = {"transformers": {"torch", "deepspeed", "accelerate"}, "accelerate": {"deepspeed"}}


@section
def fact_requirements(ask: Ask) -> dict[str, Any]:
    """Source: Requires-Dist and Requires-Python of each METADATA, requires.txt of an egg."""
    found: dict[str, dict[str, Any]] = {}
    for item in distributions():
        if not item["leftover"] and item["name"] not in found:
            found[item["name"]] = requirements(item["info"])
    wanted = {name: set(extras) for name, extras in EXTRAS.items()}
    asking = [(name, line, *asked_for(line)) for name, row in found.items() for line in row["requires"] if "[" in line]
    for _ in range(3):  # an extra may ask for an extra
        for name, line, package, extras in asking:
            if extras and of_extras(line, wanted.get(name, ())):
                wanted.setdefault(canonical(package), set()).update(extras)
    for name, row in found.items():
        row["requires"] = those_of(row["requires"], wanted.get(name, ()))[:REQUIREMENTS]
    return {"packages": {name: row for name, row in found.items() if row["requires"] or row["python"]}}


def those_of(lines: list[str], wanted: Iterable[str]) -> list[str]:
    """The requirements that are for all, or for one of the extras."""
    known: dict[str, bool] = {}  # by what stands behind the first "; ", which most of thousands share with others
    found = []
    for line in lines:
        place = line.find("; extra")
        if place < 0:
            if of_extras(line, wanted):
                found.append(line)
            continue
        marker = line[place:]
        if marker not in known:
            known[marker] = of_extras(marker, wanted)
        if known[marker]:
            found.append(line)
    return found


def of_extras(line: str, wanted: Iterable[str]) -> bool:
    """Whether a requirement is for all, or for one of the extras."""
    if "extra" not in line:
        return True
    head, found, name = line.partition("extra == ")
    mark = name[:1]
    if found and ";" in head and mark in ("'", '"') and name.count(mark) == 2 and line.count("extra") == 1:
        return bool(wanted) and name[1:].partition(mark)[0].lower() in wanted  # as most of thousands are written
    # Every second part of a marker stands in quotation marks: the value after `extra ==`.
    parts = line.partition(";")[2].replace("'", '"').split('"')
    named = [parts[place + 1].lower() for place in range(0, len(parts) - 2, 2) if asks_extra(parts[place])]
    return not named or any(extra in wanted for extra in named)


def asks_extra(text: str) -> bool:
    """Whether a part of a marker ends with `extra ==`."""
    left = text.rstrip()
    return left.endswith("==") and left[:-2].rstrip().endswith("extra")


def asked_for(line: str) -> tuple[str, set[str]]:
    """The package of a requirement, and the extras of it that are asked for: `NAME[EXTRA, ...]`."""
    name, _, rest = line.partition("[")
    extras, bracket, _ = rest.partition("]")
    name = name.strip()
    if not bracket or not name.replace(".", "").replace("-", "").replace("_", "").isalnum():
        return name, set()
    return name, {extra.strip().lower() for extra in extras.split(",")}


def without_addresses(line: str) -> str:
    """A requirement without the addresses in it (`NAME @ https://...; MARKER`): they are nobody's business."""
    while "@" in line:
        before, _, after = line.partition("@")
        line = before.rstrip() + " " + after[after.find(";") :] * (";" in after)
    return line.strip()


def requirements(info: str) -> dict[str, Any]:
    """What a distribution asks for: its Python and its requirements, those of extras with their marker."""
    rows: dict[str, Any] = {"python": "", "requires": []}
    egg = not info.endswith(".dist-info")
    for line in asking_headers(info + ("/METADATA" if not egg else "/PKG-INFO" if os.path.isdir(info) else "")):
        if line.startswith("Requires-Dist:"):
            value = line[len("Requires-Dist:") :].strip()
            rows["requires"].append((without_addresses(value) if "@" in value else value)[:500])
            continue
        name, _, value = line.partition(":")
        if name.lower() == "requires-python":
            rows["python"] = value.strip()[:200]
        elif name.lower() == "requires-dist":
            rows["requires"].append(without_addresses(value)[:500])
    if egg and not rows["requires"] and os.path.isdir(info):
        rows["requires"] = egg_requirements(read_or(info + "/requires.txt"))
    return rows


def asking_headers(path: str) -> list[str]:
    """The lines of a METADATA or PKG-INFO file that begin with `Requires-`, before its description."""
    for limit in (1 << 14, 1 << 20):
        data = raw_or(path, limit)
        if b"\r" in data:
            data = data.replace(b"\r\n", b"\n")
        data = b"\n" + data.lstrip()
        end = data.find(b"\n\n")
        if end >= 0 or len(data) < limit // 2:
            break
    data = data if end < 0 else data[:end]
    for spelling in (b"\nRequires-", b"\nrequires-", b"\nREQUIRES-"):  # one file has one of them
        place = data.find(spelling)
        if place >= 0:
            word = spelling[1:].decode("ascii")
            lines = data[place:].decode("utf-8", "surrogateescape").splitlines()
            return [line for line in lines if line.startswith(word)]
    return []


def egg_requirements(text: str) -> list[str]:
    """requires.txt of setuptools, whose [extra:marker] lines hold for what follows, as Requires-Dist has it."""
    found = []
    condition = ""
    for line in (line.strip() for line in text.splitlines()):
        if line.startswith("["):
            extra, _, marker = line.strip("[]").partition(":")
            parts = ["(%s)" % marker] if marker else []
            condition = " and ".join(parts + (['extra == "%s"' % extra] if extra else []))
        elif line:
            found.append((line + ("; " + condition if condition else ""))[:500])
    return found
