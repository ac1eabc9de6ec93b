"""The continual-learning methods, one file each: which adapter a stage trains, and what else it does while training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from continual.methods.method import Method

# The words of --method. The classes are imported when they are chosen: torch comes with them.
_CLASSES = {
    "seqlora": "SeqLoRA",
    "inclora": "IncLoRA",
    "olora": "OLoRA",
    "nlora": "NLoRA",
    "gorp": "GORP",
    "replay": "Replay",
}
NAMES = tuple(_CLASSES)
GORP_SPACES = ("gradients", "moment")  # of --gorp_space


def choose(name: str, flags: Mapping[str, Any]) -> Method:
    """The method of that name. `flags` are all flags of a stage: a method takes those that it has a field for.

    A flag that is None leaves the method's own default.
    """
    kind = getattr(import_module(f"continual.methods.{name}"), _CLASSES[name])
    names = [field.name for field in fields(kind)]
    return kind(**{name: flags[name] for name in names if flags.get(name) is not None})  # type: ignore[no-any-return]
