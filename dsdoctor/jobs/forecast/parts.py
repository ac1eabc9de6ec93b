"""A part of the memory that a training needs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """A part of the memory, in bytes, and what it is made of."""

    name: str
    size: int
    because: str
