"""CUDA_VISIBLE_DEVICES, read as CUDA and torch read it."""

from __future__ import annotations

import re
from collections.abc import Sequence

_NUMBER = re.compile(r"[+-]?\d+")


def visible(value: str, uuids: Sequence[str]) -> list[int] | None:
    """The numbers of the cards that a program sees, in its order; None for instances of divided cards (MIG).

    The first word that names no card ends the list, one that names a card twice empties it, the beginning of a UUID
    is enough, and `1gpu` is 1. Source: torch 2.13, cuda/__init__.py (_parse_visible_devices, _device_count_nvml).
    """
    if value.startswith("MIG-"):
        return None
    found: list[int] = []
    for word in value.split(","):
        index = _by_uuid(word, uuids) if value.startswith("GPU-") else _by_number(word, len(uuids))
        if index is None:
            break
        if index in found:
            return []
        found.append(index)
    return found


def first_stranger(value: str, uuids: Sequence[str]) -> str | None:
    """The first word that names no card, with what follows it ignored by CUDA; None when there is none."""
    words = value.split(",")
    seen = visible(value, uuids)
    if seen is None or len(seen) >= len(words) or (not seen and len(set(words)) < len(words)):
        return None
    return words[len(seen)].strip()


def _by_number(word: str, count: int) -> int | None:
    match = _NUMBER.match(word.strip())
    index = int(match[0]) if match and len(match[0]) < 10 else -1
    return index if 0 <= index < count else None


def _by_uuid(word: str, uuids: Sequence[str]) -> int | None:
    fits = [index for index, uuid in enumerate(uuids) if word.startswith("GPU-") and uuid.startswith(word)]
    return fits[0] if len(fits) == 1 else None
