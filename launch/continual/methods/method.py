"""What a method is: the questions that the training asks of it, each with the answer of a method that does nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from continual import ContinualError
from continual.methods.memory import Memory

Parameters = tuple[tuple[str, nn.Parameter], ...]


@dataclass(frozen=True)
class Start:
    """What a stage's learning begins with: the model with its adapters attached, on its device, not yet wrapped."""

    model: nn.Module
    adapters: tuple[str, ...]  # the trained one last
    memory: Memory = field(default_factory=Memory)  # what the stage before kept
    learning_rate: float = 1.0  # the highest of the stage; the hooks are told that of the step
    of_first: Callable[[Any], Any] = lambda value: value  # rank 0's value on every rank: for the hooks of a step only


class Learning:
    """What a method does in one stage. This one adds nothing and keeps nothing.

    Every hook is called on every rank at the same point, and does the same on all of them.
    """

    own: Parameters = ()
    """Trained parameters that the method moves itself: their gradients are joined, the optimizer does not see them."""

    def __init__(self, method: Method, start: Start) -> None:
        self.method, self.start = method, start

    def penalty(self) -> Tensor | None:
        """What is added to the loss, once a step, or None."""
        return self.method.penalty(self.start.model, self.start.adapters)

    def before_step(self, learning_rate: float) -> None:
        """Change the gradients: joined over all ranks and micro-batches, unscaled, clipped and finite."""

    def after_step(self, learning_rate: float) -> None:
        """Change the parameters, which the optimizer has just moved. Not called where fp16's scaling skips a step."""

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint within the stage must hold for the rest to go on alike; parameters are not among it."""
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from `state()`."""

    def keep(self, task: str, examples: Sequence[Any]) -> Memory:
        """What the next stage is given, after the last step of this one on the task's training examples."""
        return Memory()


class Method:
    """A method's settings and the pure part of what it computes: a frozen dataclass for each, its fields are flags."""

    name: ClassVar[str]
    """The word of --method."""
    zero_stages: ClassVar[tuple[int, ...]] = (0, 1, 2)
    """Under which stages of ZeRO it computes what it should; 0 is DistributedDataParallel."""
    zero_reason: ClassVar[str] = "it reads whole parameters, and from ZeRO-3 on a rank holds a part of each"
    share: float = 0.0
    """The share of each global batch that is taken from the memory's examples, once there are any."""

    def adapters(self, tasks: Sequence[str]) -> tuple[str, ...]:
        """The adapters after the last of these tasks, the trained one last, the frozen ones before it.

        One a task, named by its place and its task, unless a method has it otherwise.
        """
        return tuple(f"{place}-{task}" for place, task in enumerate(tasks, 1))

    def penalty(self, model: nn.Module, adapters: Sequence[str]) -> Tensor | None:
        """What is added to the loss of the trained adapter, or None. The same on every rank."""
        return None

    def begin(self, start: Start) -> Learning:
        """What it does in a stage. May mark parameters beside the last adapter's as trained, and change weights.

        Raises:
            ContinualError: the model has nothing that the method works on, or the memory does not fit it.
        """
        return Learning(self, start)

    def check_zero(self, stage: int) -> None:
        """Hold that it can be computed under a stage of ZeRO. Raises ContinualError, which says why and what can."""
        if stage not in self.zero_stages:
            allowed = ", ".join(map(str, self.zero_stages))
            raise ContinualError(
                f"--method {self.name}: ZeRO stage {stage} cannot be used with it: {self.zero_reason}; "
                f"wanted stage {allowed}"
            )


def layers(model: nn.Module, adapter: str) -> list[tuple[str, Tensor, Tensor, Any]]:
    """The modules that have this LoRA, in the model's order: name, A (r x in), B (out x r), the module itself."""
    found = []
    for name, module in model.named_modules():
        matrices = getattr(module, "lora_A", None)
        if matrices is not None and adapter in matrices:
            found.append((name, matrices[adapter].weight, module.lora_B[adapter].weight, module))
    return found


def total(terms: Sequence[Tensor]) -> Tensor | None:
    """The sum of a penalty's terms; None where there is none."""
    return torch.stack(list(terms)).sum() if terms else None
