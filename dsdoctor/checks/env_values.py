"""Whether NCCL, torch and gloo understand the value of a variable, read as they read it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from packaging.version import Version

from dsdoctor.checks.nearest import distance
from dsdoctor.checks.tables import values, variables
from dsdoctor.report.model import Severity

_NUMBER = re.compile(r"\s*[+-]?(?:0[xX][0-9a-fA-F]+|\d+)")
_SWITCH = frozenset({"y", "yes", "1", "t", "true", "n", "no", "0", "f", "false"})  # getCvarBool, in either case
_MEANS_YES = frozenset({"y", "yes", "t", "true", "on", "enable", "enabled"})
_MEANS_NO = frozenset({"n", "no", "f", "false", "off", "disable", "disabled", "none"})
_LONGEST = 24  # letters of a number that may still fit into 64 bits
_STRICT_LISTS = Version("2.24")  # the first whose parseList refuses a word that it does not know
_NAMES_OF_INTERFACES = ("NCCL_SOCKET_IFNAME", "NCCL_OOB_NET_IFNAME", "NCCL_IB_HCA")


@dataclass(frozen=True)
class Problem:
    """What is wrong with a value, how bad that is, and the value that was probably meant."""

    message: str
    severity: Severity
    wanted: str | None = None


def judge_value(name: str, value: str, nccl: Version | None) -> Problem | None:
    """What is wrong with a variable's value; None when nothing is, and for a variable that is not known here.

    A value that a shell still has to work out (`$HOME/x`) is not judged.
    """
    value = value.rstrip("\r")
    by_torch = name in (*values().torch_switches, *values().torch_numbers, *values().torch_words)
    if "$" in value or not _known(name) or not (value.strip() or by_torch):
        return None  # NCCL takes an empty value for none, torch does not
    if len(value) > 1 and value[0] in "\"'" and value[-1] == value[0]:
        bare = value[1:-1]
        return Problem(f"{name}={_short(value)}: the quotes are part of the value", Severity.WARNING, bare)
    if by_torch:
        return _by_torch(name, value)
    if name in values().words:
        return _one_of(name, value, values().words[name])
    if name in values().lists:
        return _list_of(name, value, values().lists[name], nccl)
    if name in values().levels:
        return _level(name, value)
    if name in _NAMES_OF_INTERFACES:
        return _interfaces(name, value)
    if name in variables().nccl and name not in values().text:
        return _number(name, value)
    return None


def reads_as(value: str) -> int:
    """The number that NCCL takes a value for: strtoll's with base 0, so 0 for a word, and octal after a leading 0."""
    match = _NUMBER.match(value)
    if match is None:
        return 0
    digits = match[0].strip().lower()
    if len(digits) > _LONGEST:
        return 1 << 63  # out of range: NCCL takes its default
    octal = re.match(r"[+-]?0[0-7]*", digits)
    return int(octal[0], 8) if octal and "x" not in digits else int(digits, 0)


def _known(name: str) -> bool:
    table = variables()
    return name in table.nccl or name in table.torch or name in table.renamed


def _by_torch(name: str, value: str) -> Problem | None:
    """What torch refuses: with an exception when the process group is made, or at the import of torch.distributed."""
    if name in values().torch_words:
        words = values().torch_words[name]
        if value.upper() in words:
            return None
        return Problem(f"{name}={_short(value)}: torch takes {_listed(words)} and fails at once", Severity.ERROR)
    if name in values().torch_numbers:
        if re.match(r"\s*[+-]?\d", value):
            return None
        return Problem(f"{name}={_short(value)}: torch wants a number and fails with anything else", Severity.ERROR)
    if value.lower() in _SWITCH:
        return None
    wanted = _meant(value)
    return Problem(f"{name}={_short(value)}: torch takes 0 or 1 and fails with anything else", Severity.ERROR, wanted)


def _one_of(name: str, value: str, words: tuple[str, ...]) -> Problem | None:
    given = value.upper() if name == "NCCL_DEBUG" else value
    if given in words:
        return None
    near = _nearest_word(value, words)
    effect = "nothing at all is printed" if name == "NCCL_DEBUG" else "it is ignored without a message"
    return Problem(f"{name}={_short(value)}: {effect}; it takes {_listed(words)}", Severity.WARNING, near)


def _list_of(name: str, value: str, words: tuple[str, ...], nccl: Version | None) -> Problem | None:
    """A list with commas; those of NCCL_ALGO and NCCL_PROTO may be different for each collective from 2.24 on."""
    known = {word.lower() for word in words}
    parts = value.split(";") if name != "NCCL_DEBUG_SUBSYS" else [value]
    for part in parts:
        items = part.rpartition(":")[2].removeprefix("^").split(",")
        wrong = [item for item in items if item.lower() not in known]
        if wrong:
            strict = name != "NCCL_DEBUG_SUBSYS" and nccl is not None and nccl >= _STRICT_LISTS
            effect = f"NCCL {nccl} refuses to start over" if strict else "NCCL ignores"
            message = (
                f"{name}={_short(value)}: {effect} {_short(wrong[0]) or 'an empty word'}; it takes {_listed(words)}"
            )
            return Problem(message, Severity.ERROR if strict else Severity.WARNING)
    return None


def _level(name: str, value: str) -> Problem | None:
    words = values().level_words
    if value in words:
        return None
    if value[0].isdigit():
        message = f"{name}={_short(value)}: numbers mean other paths than they did (there is none for NVL)"
        return Problem(f"{message}; NCCL's guide wants a name: {_listed(words)}", Severity.INFO)
    right = value.strip().upper()
    message = f"{name}={_short(value)} is ignored without a message; it takes {_listed(words)}, in capitals"
    return Problem(message, Severity.WARNING, right if right in words else None)


def _interfaces(name: str, value: str) -> Problem | None:
    """The grammar is [^][=]name,name: the signs stand once, before everything."""
    names = value.removeprefix("^").removeprefix("=").split(",")
    for word in names:
        if word and word[0] in "^=":
            return Problem(f"{name}={_short(value)}: ^ and = count only before the whole list", Severity.WARNING)
        if word != word.strip():
            message = f"{name}={_short(value)}: the blank counts as part of a name, which then matches nothing"
            return Problem(message, Severity.WARNING, ",".join(part.strip() for part in value.split(",")))
        if set(word) & set("*?;"):
            message = f"{name}={_short(value)}: a word is the beginning of a name and no pattern"
            return Problem(message, Severity.WARNING, value.replace("*", ""))
    return None


def _number(name: str, value: str) -> Problem | None:
    if _NUMBER.match(value) is None:
        if value.strip().lower() in _MEANS_NO:
            return None  # it counts as 0, which is what was meant
        meant = _meant(value)
        message = f"{name}={_short(value)} counts as 0: NCCL reads a number there"
        if meant and name.endswith("_DISABLE"):
            message += ", so nothing is disabled"
        return Problem(message, Severity.WARNING, meant)
    low, high = values().ranges.get(name, (None, None))
    seen = reads_as(value)
    if low is None or high is None or low <= seen <= high:
        return None
    if name == "NCCL_IB_TIMEOUT":
        return Problem(f"{name}={_short(value)}: NCCL then waits without end; it takes 1 to 31", Severity.WARNING)
    return Problem(f"{name}={_short(value)}: it takes {low} to {high}", Severity.WARNING)


def _meant(value: str) -> str | None:
    word = value.strip().lower()
    return "1" if word in _MEANS_YES else "0" if word in _MEANS_NO else None


def _nearest_word(value: str, words: Iterable[str]) -> str | None:
    near = [word for word in words if distance(value.strip().upper(), word) <= (2 if len(word) > 5 else 1)]
    return near[0] if len(near) == 1 else None


def _listed(words: Iterable[str]) -> str:
    *others, last = words
    return f"{', '.join(others)} or {last}" if others else last


def _short(value: str) -> str:
    return value if len(value) <= 60 else f"{value[:60]}…"
