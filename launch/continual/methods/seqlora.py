"""SeqLoRA: one LoRA, trained on one task after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from continual.methods.method import Method


@dataclass(frozen=True)
class SeqLoRA(Method):
    """One LoRA for all tasks and nothing added: the lower bound that others are compared with.

    LoRA itself: Hu et al., arXiv 2106.09685. The name and the part as the baseline are O-LoRA's (arXiv 2310.14152).
    """

    name: ClassVar[str] = "seqlora"
    zero_stages: ClassVar[tuple[int, ...]] = (0, 1, 2, 3)

    def adapters(self, tasks: Sequence[str]) -> tuple[str, ...]:
        """One for all tasks."""
        return ("all",)
