"""IncLoRA: a new LoRA for each task, summed with the frozen earlier ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from continual.methods.method import Method


@dataclass(frozen=True)
class IncLoRA(Method):
    """A LoRA for each task, the earlier ones frozen, all of them summed, nothing added to the loss.

    The baseline of the same name in O-LoRA (Wang et al., arXiv 2310.14152):  W + sum over tasks i of s · B_i · A_i,
    and only the last B and A are trained. What is better than it, is so by more than by having a LoRA a task.
    """

    name: ClassVar[str] = "inclora"
    zero_stages: ClassVar[tuple[int, ...]] = (0, 1, 2, 3)
