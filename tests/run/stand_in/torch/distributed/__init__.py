"""Collectives of the stand-in: every rank is alone, and everything fits."""

from __future__ import annotations

import os
import types
from typing import Any

from torch import WISHES, befall

ReduceOp = types.SimpleNamespace(MAX="max")


def init_process_group(backend: str, timeout: Any) -> None:
    """Join nobody."""
    befall(WISHES.get("join"))
    if get_world_size() > 2:
        befall(WISHES.get("join together"))


def get_rank() -> int:
    """As torchrun says."""
    return int(os.environ["RANK"])


def get_world_size() -> int:
    """As torchrun says."""
    return int(os.environ["WORLD_SIZE"])


def all_reduce(tensor: Any, op: Any = None) -> None:
    """Add nothing."""


def barrier() -> None:
    """Wait for nobody."""
