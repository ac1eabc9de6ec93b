"""What a method hands from one stage to the next beside the adapters: tensors by name, and examples by task."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from continual import ContinualError

FOLDER = "memory"  # beside the adapters' folders; no adapter has this name
TENSORS, EXAMPLES = "tensors.safetensors", "examples.json"


@dataclass(frozen=True)
class Memory:
    """Subspaces, moved weights and the like, and examples of earlier tasks as `data` has them (JSON can hold them)."""

    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    examples: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.tensors or self.examples)


def write(memory: Memory, adapters: Path) -> None:
    """Write it beside the adapters, so that it is moved into place and verified with them. Nothing if it is empty."""
    if not memory:
        return
    from safetensors.torch import save_file

    folder = adapters / FOLDER
    folder.mkdir(parents=True)
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in memory.tensors.items()}, folder / TENSORS)
    (folder / EXAMPLES).write_text(json.dumps(memory.examples), encoding="utf-8")


def read(adapters: Path | None) -> Memory:
    """What lies beside the adapters of the stage before; an empty memory if nothing does.

    Raises:
        ContinualError: it is there and cannot be read.
    """
    if adapters is None or not (folder := adapters / FOLDER).is_dir():
        return Memory()
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(folder / TENSORS)
        rows = json.loads((folder / EXAMPLES).read_text(encoding="utf-8"))
        return Memory(tensors, {task: [tuple(example) for example in kept] for task, kept in rows.items()})
    except (OSError, ValueError, TypeError, AttributeError, SafetensorError) as error:
        raise ContinualError(f"{folder}: cannot be read: {error}\n  run that stage again") from None
