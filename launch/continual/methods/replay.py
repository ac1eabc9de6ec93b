"""Replay: SeqLoRA that goes on seeing a few examples of the earlier tasks."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from continual.methods.memory import Memory
from continual.methods.method import Learning, Start
from continual.methods.seqlora import SeqLoRA


class _Remembering(Learning):
    """Keeps examples of each task; mixing them into the batches is the training's part."""

    method: Replay

    def keep(self, task: str, examples: Sequence[Any]) -> Memory:
        """The memory so far and a sample of this task's examples: the same for every rank, seed and world size."""
        chosen = random.Random(f"replay {task}").sample(
            range(len(examples)), min(self.method.replay_size, len(examples))
        )
        return Memory(examples={**self.start.memory.examples, task: [examples[place] for place in sorted(chosen)]})


@dataclass(frozen=True)
class Replay(SeqLoRA):
    """One LoRA for all tasks, and in each global batch a share of stored examples of the earlier ones.

    Experience replay as in Chaudhry et al., "On Tiny Episodic Memories in Continual Learning", arXiv 1902.10486: a
    memory of a few examples a task, drawn at random. There a batch of the memory comes on top of one of the task; here
    the global batch stays what it is and the memory's share is within it, so that methods are compared by equal work.
    """

    name: ClassVar[str] = "replay"
    replay_size: int = 50
    replay_share: float = 0.25

    @property
    def share(self) -> float:  # type: ignore[override]
        """The memory's share of each global batch."""
        return self.replay_share

    def begin(self, start: Start) -> Learning:
        """A learning that keeps examples."""
        return _Remembering(self, start)
