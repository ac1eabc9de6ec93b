"""The training loop and the measuring of accuracy.

A plain loop rather than transformers' Trainer: a step takes exactly the global batch for any number of ranks, also
where that does not divide evenly or the ranks are unlike (the Trainer has one batch size for all ranks), nothing of
Trainer's has to be overridden between releases, and a stage starts sooner.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from continual.adapters import trainable
from continual.batches import Batches, mixed, share_of
from continual.checkpoints import Checkpoints
from continual.health import CHECK_AT, Health
from continual.joining import Joined, Plain, Zero
from continual.methods.method import Learning
from continual.ranks import Ranks

SCHEDULES = ("constant", "constant_with_warmup", "linear", "cosine")


class Inputs(Protocol):
    """Examples as a learner takes them."""

    def __len__(self) -> int: ...

    def length(self, place: int) -> int:
        """Tokens of an example."""

    def weight(self, places: Sequence[int]) -> int:
        """What the summed loss of some examples is divided by to be their mean."""

    def batch(self, places: Sequence[int], device: torch.device) -> tuple[Tensor, ...]:
        """Some examples, as the learner is called with."""

    def joined(self, others: Sequence[Any]) -> Inputs:
        """These examples, then others of the same kind."""

    def is_right(self, place: int, answer: Any) -> bool:
        """Whether an answer is the one to an example."""


class Learner(Protocol):
    """A module that is called with a batch and gives the summed loss."""

    def answers(self, inputs: Any, places: Sequence[int], device: torch.device) -> list[Any]:
        """What it answers to some examples: places of labels, or texts."""


@dataclass(frozen=True)
class Settings:
    """How much at once, how long and how fast."""

    batches: Batches
    steps: int
    learning_rate: float
    schedule: str = "constant"
    warmup_steps: int = 0
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    logging_steps: int = 10
    seed: int = 0

    def learning_rate_at(self, step: int) -> float:
        """The learning rate of a step, from 1; above 0 in every step."""
        if self.schedule == "constant":
            return self.learning_rate
        if step <= self.warmup_steps:
            return self.learning_rate * step / self.warmup_steps
        done = (step - 1 - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        factor = {"linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}.get(self.schedule, 1.0)
        return self.learning_rate * factor


@dataclass(frozen=True)
class Result:
    """What a training gave. `loss` is the mean over all steps, in `seconds`; what lies before a checkpoint counts."""

    loss: float
    seconds: float
    steps: int
    samples: int
    history: tuple[dict[str, Any], ...] = ()  # the printed lines, of all steps


@dataclass
class Sums:
    """What the loop has added up so far: of all ranks up to the last printed line, and of this rank since."""

    total: float = 0.0
    recent: float = 0.0
    since: int = 0
    seconds: float = 0.0


class Training:
    """One stage's training of one adapter on one task."""

    def __init__(
        self,
        learner: nn.Module,
        learning: Learning,
        settings: Settings,
        ranks: Ranks,
        zero: Mapping[str, Any] | None = None,
    ) -> None:
        self.learner, self.ranks, self.settings, self.batches = learner, ranks, settings, settings.batches
        self.learning = learning
        self.parameters = trainable(learner)
        adamw = {"lr": settings.learning_rate, "weight_decay": settings.weight_decay}
        self.joined: Joined = (
            Plain(learner, self.parameters, learning.own, settings.max_grad_norm, ranks, **adamw)
            if zero is None
            else Zero(learner, self.parameters, zero, ranks, **adamw)
        )
        self.health = Health(ranks, self.joined.scales)
        self.history: list[dict[str, Any]] = []
        # DeepSpeed turns the module itself to half precision.
        dtypes = {"fp16": torch.float16, "bf16": torch.bfloat16} if zero is None else {}
        self.dtype = dtypes.get(ranks.precision)

    def __str__(self) -> str:
        shares = " + ".join(str(sum(sizes)) for sizes in self.batches.sizes)
        *frozen, trained = self.learning.start.adapters
        return (
            f"{self.settings.steps} steps of {self.batches.global_size} examples ({shares}); "
            f"trained: LoRA {trained}, {self.size} parameters; frozen: {', '.join(frozen) or 'none'}"
        )

    @property
    def size(self) -> int:
        """How many numbers are trained."""
        return sum(getattr(parameter, "ds_numel", parameter.numel()) for _, parameter in self.parameters)

    def run(self, inputs: Inputs, earlier: Sequence[Inputs] = (), checkpoints: Checkpoints | None = None) -> Result:
        """Train, with the method's share of each global batch taken from examples of earlier tasks if there are any.

        Rank 0 prints a line every `logging_steps` in the form of transformers' Trainer. With checkpoints, it goes on
        from the newest, and writes new ones.

        Raises:
            AgreedError: something is not as it must be in a healthy training; on all ranks.
        """
        settings, size = self.settings, self.batches.global_size
        count, kept = len(inputs), sum(len(task) for task in earlier)
        share = share_of(self.learning.method.share, size) if kept else 0
        places = mixed(count, kept, share, settings.steps, size, settings.seed)
        inputs = inputs.joined(earlier) if kept else inputs
        done, sums = self._resume(checkpoints)
        with self.joined.whole():
            initial = [parameter.detach().clone() for _, parameter in self.parameters]
        began = time.monotonic() - sums.seconds
        for step in range(done + 1, settings.steps + 1):
            loss, penalty, norm = self._step(step, inputs, places[(step - 1) * size : step * size])
            sums.recent, sums.since = sums.recent + loss, sums.since + 1
            if step in (min(done + CHECK_AT, settings.steps), settings.steps):
                with self.joined.whole():
                    rate = settings.learning_rate_at(step)
                    self.health.check_parameters(step, rate, self.parameters, initial)
            if step % settings.logging_steps == 0 or step == settings.steps:
                (summed,) = self.ranks.sums(sums.recent)
                sums.total += summed
                self._say(self._line(step, summed / sums.since, penalty, norm, step * size / count))
                sums.recent, sums.since = 0.0, 0
            if checkpoints is not None and checkpoints.is_due(step, settings.steps):
                sums.seconds = time.monotonic() - began
                self._save(checkpoints, step, sums)
        seconds = time.monotonic() - began
        steps = settings.steps
        return Result(sums.total / steps, seconds, steps, steps * size, tuple(self.history))

    def _line(self, step: int, loss: float, penalty: float | None, norm: float, epoch: float) -> dict[str, Any]:
        line: dict[str, Any] = {"loss": round(loss, 4), "grad_norm": round(norm, 4)}
        line["learning_rate"] = self.settings.learning_rate_at(step)
        line |= {"epoch": round(epoch, 2), "step": step, "max_steps": self.settings.steps}
        return line if penalty is None else line | {"penalty": round(penalty, 4)}

    def _step(self, step: int, inputs: Inputs, batch: Sequence[int]) -> tuple[float, float | None, float]:
        """One optimizer step: this rank's part of the loss, the penalty, and the norm of the joined gradient."""
        rate = self.settings.learning_rate_at(step)
        self.joined.begin(rate)
        world, device = self.ranks.place.world_size, self.ranks.device
        parts = self.batches.of(self.ranks.place.rank, batch)
        if not self.joined.meets_always:
            parts = [part for part in parts if part]
        weight = inputs.weight(batch)  # of all ranks: every rank knows the whole batch
        data_loss = 0.0
        penalty: Tensor | None = None
        for number, part in enumerate(parts, 1):
            last = number == len(parts)
            with self.joined.micro(last):
                with torch.autocast(device.type, self.dtype, enabled=self.dtype is not None):
                    # Where ranks wait for each other, one without an example takes part with one that counts nothing.
                    summed = self.joined.module(*inputs.batch(part or batch[:1], device)) * (1 if part else 0)
                # Divided by the whole batch's weight, so that ranks with more examples weigh more; times the world
                # size, because the mean of the ranks' gradients is taken.
                data_loss += summed.item() / weight
                loss = summed / weight * world
                if last and (penalty := self.learning.penalty()) is not None:
                    loss = loss + penalty
                self.joined.backward(loss, last)
        added = penalty.item() if penalty is not None else 0.0
        norm = self._move(step, rate, data_loss)
        return data_loss + added / world, added if penalty is not None else None, norm

    def _move(self, step: int, rate: float, loss: float) -> float:
        """Join the gradients and move the parameters, with the method's part before and after; the gradient's norm."""
        norm = self.joined.join_gradients()
        if norm is None:
            norm = self.joined.step()
            self.health.check_step(step, loss, norm)
            return norm
        self.health.check_step(step, loss, norm)
        taken = math.isfinite(norm)
        if taken:
            self.learning.before_step(rate)
        self.joined.step()
        if taken:
            self.learning.after_step(rate)
        return norm

    def _save(self, checkpoints: Checkpoints, step: int, sums: Sums) -> None:
        (recent,) = self.ranks.sums(sums.recent)
        state = {
            "sums": {"total": sums.total, "recent": recent, "since": sums.since, "seconds": sums.seconds},
            "skipped": self.health.skipped,
            "history": self.history,
            "parameters": self.joined.state(),
            "learning": {name: tensor.detach().cpu() for name, tensor in self.learning.state().items()},
        }
        checkpoints.save(step, state, self.ranks)

    def _resume(self, checkpoints: Checkpoints | None) -> tuple[int, Sums]:
        """The steps that are done already, and the sums over them."""
        found = checkpoints.newest(self.ranks) if checkpoints is not None else None
        if found is None:
            return 0, Sums()
        step, state = found
        self.joined.restore(state["parameters"])
        self.learning.restore({name: tensor.to(self.ranks.device) for name, tensor in state["learning"].items()})
        self.health.skipped = state["skipped"]
        self.history = list(state.get("history", ()))
        sums = Sums(**state["sums"])
        if self.ranks.place.rank > 0:
            sums.recent = 0.0  # the sum of all ranks is rank 0's now
        return step, sums

    def _say(self, line: dict[str, Any]) -> None:
        self.history.append(line)
        if self.ranks.place.rank == 0:
            print(line, flush=True)


@dataclass(frozen=True)
class Measured:
    """What a model answered: the accuracy in per cent, and each example's answer, a text or the place of a label."""

    accuracy: float
    answers: tuple[Any, ...]


@torch.no_grad()
def measure(learner: Any, inputs: Inputs, ranks: Ranks, batch_size: int) -> Measured:
    """Ask every example; each rank its part, and all ranks know all answers afterwards.

    Every rank has as many batches: under ZeRO-3 they wait for each other in each. An example that only fills up is not
    counted.
    """
    places = sorted(range(len(inputs)), key=inputs.length)
    world = ranks.place.world_size
    mine = places[ranks.place.rank :: world]
    fill = math.ceil(len(places) / world) - len(mine)
    given: list[Any] = []
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(ranks.precision)
    for start in range(0, len(mine) + fill, batch_size):
        taken = [*mine, *places[:fill]][start : start + batch_size]
        with torch.autocast(ranks.device.type, dtype, enabled=dtype is not None):
            given += learner.answers(inputs, taken, ranks.device)
    answers = dict(pair for part in ranks.gather(list(zip(mine, given, strict=False))) for pair in part)
    correct = sum(inputs.is_right(place, answer) for place, answer in answers.items())
    return Measured(100.0 * correct / len(inputs), tuple(answers[place] for place in range(len(inputs))))
