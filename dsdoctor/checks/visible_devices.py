"""CUDA_VISIBLE_DEVICES, read as CUDA and torch read it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import takewhile

_NUMBER = re.compile(r"[+-]?\d+")


def visible(value: str, uuids: Sequence[str]) -> list[int] | None:
    """The numbers of the cards that a program sees, in its order; None for instances of divided cards (MIG).

    The first word that names no card ends the list, one that names a card twice empties it, the beginning of a UUID
    is enough, and `1gpu` is 1. Source: torch 2.13, cuda/__init__.py (_parse_visible_devices, _device_count_nvml).
    """
    kind = value[:4]
    names: list[str] | list[int] = _beginnings(value, kind) if kind in ("GPU-", "MIG-") else _numbers(value)
    if len(set(names)) < len(names):
        return []
    if kind == "MIG-":
        return None
    found: list[int] = []
    for name in names:
        index = _by_uuid(name, uuids) if isinstance(name, str) else name
        if not 0 <= index < len(uuids):
            break
        if index in found:
            return []  # by two names
        found.append(index)
    return found


def first_stranger(value: str, uuids: Sequence[str]) -> str | None:
    """The first word that names no card, for which CUDA ignores it and all behind it; None when there is none."""
    words = value.split(",")
    seen = visible(value, uuids)
    if seen is None or len(seen) >= len(words):
        return None
    if not seen and visible(words[0], uuids) != []:
        return None  # the first is well: one is named twice
    return words[len(seen)].strip()


def _numbers(value: str) -> list[int]:
    """The numbers up to the first that is negative or none."""
    found: list[int] = []
    for word in value.split(","):
        match = _NUMBER.match(word.strip())
        number = int(match[0]) if match and len(match[0]) < 10 else -1
        if number < 0:
            break
        found.append(number)
    return found


def _beginnings(value: str, kind: str) -> list[str]:
    """The UUIDs, or beginnings of UUIDs, up to the first word of another kind."""
    return list(takewhile(lambda word: word.startswith(kind), value.split(",")))


def _by_uuid(word: str, uuids: Sequence[str]) -> int:
    fits = [index for index, uuid in enumerate(uuids) if uuid.startswith(word)]
    return fits[0] if len(fits) == 1 else -1
