"""The training loop, its batches, its health checks, and the measuring of accuracy.

A plain loop around DistributedDataParallel rather than transformers' Trainer: a step takes exactly the global batch
for any number of ranks, also where that does not divide evenly (the Trainer has one batch size for all ranks), nothing
of Trainer's has to be overridden between releases, and a stage starts sooner.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from continual import AgreedError, ContinualError
from continual.adapters import trainable
from continual.methods.method import Learning
from continual.models import Matcher, pad
from continual.ranks import Ranks

SCHEDULES = ("constant", "constant_with_warmup", "linear", "cosine")
CHECK_AT = 2  # the step after which parameters must have moved, and be equal on all ranks
TOLERANCE = 1e-3  # of a tensor's norm: unlike GPUs differ in the last bits, ranks that train alone differ by far more
OVERFLOWS = 10  # steps in a row that fp16's loss scaling may skip
_CALMER = "\n  a lower --learning_rate, a --warmup_steps, or --precision bf16 or fp32 instead of fp16"


@dataclass(frozen=True)
class Batches:
    """How a global batch is dealt out: the sizes of the micro-batches of each rank, as many on every rank.

    A size may be 0, but never a rank's last one: there the gradients of all ranks meet.
    """

    global_size: int
    sizes: tuple[tuple[int, ...], ...]

    def of(self, rank: int, batch: Sequence[int]) -> list[Sequence[int]]:
        """The micro-batches of one rank out of a global batch."""
        start = sum(sum(sizes) for sizes in self.sizes[:rank])
        parts = []
        for size in self.sizes[rank]:
            parts.append(batch[start : start + size])
            start += size
        return parts


def deal(
    world_size: int, global_size: int | None = None, per_device: int | None = None, accumulation: int | None = None
) -> Batches:
    """Divide the global batch among ranks and micro-batches; what is not given follows from the rest.

    Without a global size it is per_device (8) * accumulation (1) * world_size. With one, it holds exactly: ranks differ
    by at most one example, and per_device is the most that a micro-batch may have.

    Raises:
        ContinualError: the three given numbers contradict each other, or a rank would go without an example.
    """
    if global_size is None:
        per_device, accumulation = per_device or 8, accumulation or 1
        global_size = per_device * accumulation * world_size
    elif per_device and accumulation and per_device * accumulation * world_size != global_size:
        raise ContinualError(
            f"--global_batch_size {global_size}: --per_device_train_batch_size {per_device} * "
            f"--gradient_accumulation_steps {accumulation} * world size {world_size} is "
            f"{per_device * accumulation * world_size}\n  leave one of the two out, and it is derived"
        )
    if global_size < world_size:
        raise ContinualError(
            f"--global_batch_size {global_size}: less than one example for each of {world_size} ranks; "
            f"wanted at least {world_size}"
        )
    shares = [global_size // world_size + (rank < global_size % world_size) for rank in range(world_size)]
    steps = accumulation or math.ceil(max(shares) / (per_device or max(shares)))
    return Batches(global_size, tuple(_split(share, steps) for share in shares))


def _split(share: int, steps: int) -> tuple[int, ...]:
    """A share in nearly equal parts, the smaller ones first."""
    return tuple(share // steps + (step >= steps - share % steps) for step in range(steps))


def order_of_examples(count: int, needed: int, seed: int) -> list[int]:
    """The examples in the order they are trained on: each epoch shuffled anew, one after the other without a gap."""
    chance = random.Random(seed)
    places: list[int] = []
    while len(places) < needed:
        epoch = list(range(count))
        chance.shuffle(epoch)
        places += epoch
    return places[:needed]


def share_of(share: float, global_size: int) -> int:
    """How many examples of a global batch a share of it is: at least one, and at least one is left."""
    return min(max(round(share * global_size), 1), global_size - 1) if share else 0


def mixed(count: int, kept: int, share: int, settings: Settings) -> list[int]:
    """The examples in the order they are trained on, `share` of each global batch from `kept` ones of earlier tasks.

    Those have the places after the `count` of this task; each list is gone through evenly, shuffled anew each time.
    """
    size = settings.batches.global_size
    new = order_of_examples(count, settings.steps * (size - share), settings.seed)
    if not share:
        return new
    old = [count + place for place in order_of_examples(kept, settings.steps * share, settings.seed)]
    places: list[int] = []
    for step in range(settings.steps):
        places += new[step * (size - share) : (step + 1) * (size - share)] + old[step * share : (step + 1) * share]
    return places


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
    """What a training gave. `loss` is the mean over all steps, in `seconds`."""

    loss: float
    seconds: float
    steps: int
    samples: int


@dataclass(frozen=True)
class Inputs:
    """Tokenized examples of a task with their labels and the vectors of the label names.

    Of several tasks joined, `candidates` says which labels, from and up to, each example may have.
    """

    rows: list[list[int]]
    gold: list[int]
    labels: Tensor
    pad_id: int
    candidates: list[tuple[int, int]] | None = None

    def joined(self, others: Sequence[Inputs]) -> Inputs:
        """This task's examples, then those of other tasks; each example keeps its own task's labels to choose from."""
        tasks = (self, *others)
        gold: list[int] = []
        candidates: list[tuple[int, int]] = []
        first = 0
        for task in tasks:
            end = first + len(task.labels)
            gold += [first + label for label in task.gold]
            candidates += [(first, end)] * len(task.rows)
            first = end
        rows = [row for task in tasks for row in task.rows]
        return Inputs(rows, gold, torch.cat([task.labels for task in tasks]), self.pad_id, candidates)

    def allowed(self, places: Sequence[int], scores: Tensor) -> Tensor:
        """Scores of some examples, with the labels of other tasks out of the question."""
        if self.candidates is None:
            return scores
        spans = torch.tensor([self.candidates[place] for place in places], device=scores.device)
        label = torch.arange(scores.shape[1], device=scores.device)
        return scores.masked_fill((label < spans[:, :1]) | (label >= spans[:, 1:]), -math.inf)

    def batch(self, places: Sequence[int], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Token numbers, mask and labels of some examples."""
        ids, mask = pad([self.rows[place] for place in places], self.pad_id, device)
        return ids, mask, torch.tensor([self.gold[place] for place in places], device=device)


class Training:
    """One stage's training of one adapter on one task."""

    def __init__(self, matcher: Matcher, learning: Learning, settings: Settings, ranks: Ranks) -> None:
        self.matcher, self.ranks, self.settings, self.batches = matcher, ranks, settings, settings.batches
        self.learning = learning
        self.wrapped: nn.Module = matcher
        if ranks.place.world_size > 1:
            devices = [ranks.device.index] if ranks.device.type == "cuda" else None
            self.wrapped = nn.parallel.DistributedDataParallel(matcher, device_ids=devices)
        self.parameters = trainable(matcher)
        own = {id(parameter) for _, parameter in learning.own}
        tensors = [parameter for _, parameter in self.parameters if id(parameter) not in own]
        self.optimizer = torch.optim.AdamW(tensors, lr=settings.learning_rate, weight_decay=settings.weight_decay)
        self.scaler = torch.amp.GradScaler(ranks.device.type, enabled=ranks.precision == "fp16")
        self.dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(ranks.precision)
        self.skipped = 0  # steps in a row

    def __str__(self) -> str:
        shares = " + ".join(str(sum(sizes)) for sizes in self.batches.sizes)
        *frozen, trained = self.learning.start.adapters
        numbers = sum(parameter.numel() for _, parameter in self.parameters)
        return (
            f"{self.settings.steps} steps of {self.batches.global_size} examples ({shares}); "
            f"trained: LoRA {trained}, {numbers} parameters; frozen: {', '.join(frozen) or 'none'}"
        )

    def run(self, inputs: Inputs, earlier: Sequence[Inputs] = ()) -> Result:
        """Train, with the method's share of each global batch taken from examples of earlier tasks if there are any.

        Rank 0 prints a line every `logging_steps` in the form of transformers' Trainer.

        Raises:
            AgreedError: something is not as it must be in a healthy training; on all ranks.
        """
        settings, size = self.settings, self.batches.global_size
        count = len(inputs.rows)
        kept = sum(len(task.rows) for task in earlier)
        places = mixed(count, kept, share_of(self.learning.method.share, size) if kept else 0, settings)
        inputs = inputs.joined(earlier) if kept else inputs
        initial = [parameter.detach().clone() for _, parameter in self.parameters]
        began = time.monotonic()
        total = recent = 0.0
        since = 0
        for step in range(1, settings.steps + 1):
            batch = places[(step - 1) * size : step * size]
            loss, penalty, norm = self._step(step, inputs, batch)
            recent, since = recent + loss, since + 1
            if step == min(CHECK_AT, settings.steps) or step == settings.steps:
                self._check_parameters(step, initial)
            if step % settings.logging_steps == 0 or step == settings.steps:
                (summed,) = self.ranks.sums(recent)
                total += summed
                line: dict[str, Any] = {"loss": round(summed / since, 4), "grad_norm": round(norm, 4)}
                line["learning_rate"] = settings.learning_rate_at(step)
                line["epoch"] = round(step * size / count, 2)
                line |= {"step": step, "max_steps": settings.steps}
                if penalty is not None:
                    line["penalty"] = round(penalty, 4)
                self._say(line)
                recent, since = 0.0, 0
        seconds = time.monotonic() - began
        return Result(total / settings.steps, seconds, settings.steps, settings.steps * size)

    def _step(self, step: int, inputs: Inputs, batch: Sequence[int]) -> tuple[float, float | None, float]:
        """One optimizer step: this rank's part of the loss, the penalty, and the norm of the joined gradient."""
        rate = self.settings.learning_rate_at(step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        for _, parameter in self.parameters:
            parameter.grad = None
        world = self.ranks.place.world_size
        parts = [part for part in self.batches.of(self.ranks.place.rank, batch) if part]
        data_loss = 0.0
        penalty: Tensor | None = None
        for number, part in enumerate(parts, 1):
            last = number == len(parts)
            with nullcontext() if last or world == 1 else self.wrapped.no_sync():
                ids, mask, gold = inputs.batch(part, self.ranks.device)
                with torch.autocast(self.ranks.device.type, self.dtype, enabled=self.dtype is not None):
                    scores = self.wrapped(ids, mask, inputs.labels)
                scores = inputs.allowed(part, scores.float())
                # Divided by the global batch, so that ranks with more examples weigh more; times the world size,
                # because DistributedDataParallel takes the mean of the ranks' gradients.
                loss = nn.functional.cross_entropy(scores, gold, reduction="sum") / self.batches.global_size
                data_loss += loss.item()
                loss = loss * world
                if last and (penalty := self.learning.penalty()) is not None:
                    loss = loss + penalty
                self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        for _, parameter in self.learning.own:  # the scaler knows the optimizer's alone
            if self.scaler.is_enabled() and parameter.grad is not None:
                parameter.grad /= self.scaler.get_scale()
        tensors = [parameter for _, parameter in self.parameters]
        norm = nn.utils.clip_grad_norm_(tensors, self.settings.max_grad_norm).item()
        added = penalty.item() if penalty is not None else 0.0
        self._check_step(step, data_loss, norm)
        taken = math.isfinite(norm)
        if taken:
            self.learning.before_step(rate)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if taken:
            self.learning.after_step(rate)
        return data_loss + added / world, added if penalty is not None else None, norm

    def _check_step(self, step: int, loss: float, norm: float) -> None:
        """Hold that the joined gradient is finite. It is the same on all ranks, and so is what they do then."""
        if math.isfinite(norm):
            self.skipped = 0
            return
        self.skipped += 1
        if self.scaler.is_enabled() and self.skipped <= OVERFLOWS:
            return  # the scaler skips this step and scales less
        losses = [(str(self.ranks.place), loss)]
        if self.ranks.place.world_size > 1:
            losses = self.ranks.gather(losses[0])
        for where, value in losses:
            if not math.isfinite(value):
                raise AgreedError(f"health: {where}: loss is {value} at step {step}; wanted a finite number{_CALMER}")
        raise AgreedError(f"health: the gradient's norm is {norm} at step {step}; wanted a finite number{_CALMER}")

    def _check_parameters(self, step: int, initial: Sequence[Tensor]) -> None:
        """Hold that training has moved the parameters, and that they are equal on all ranks."""
        rate = self.optimizer.param_groups[0]["lr"]
        if rate <= 0:
            raise AgreedError(f"health: the learning rate is {rate} at step {step}; wanted above 0")
        moved = any(not torch.equal(p, old) for (_, p), old in zip(self.parameters, initial, strict=True))
        sums = [(p.double().sum().item(), p.double().norm().item()) for _, p in self.parameters]
        reports = self.ranks.gather((str(self.ranks.place), moved or self.skipped > 0, sums))
        for where, has_moved, _ in reports:
            if not has_moved:
                raise AgreedError(
                    f"health: {where}: no trainable parameter has changed by step {step}, learning rate {rate}; "
                    "wanted: every step of the optimizer moves them"
                )
        for where, _, theirs in reports[1:]:
            for (name, _), ours, other in zip(self.parameters, reports[0][2], theirs, strict=True):
                allowed = TOLERANCE * (ours[1] + 1e-6)
                if not all(abs(a - b) <= allowed for a, b in zip(ours, other, strict=True)):  # nan is not equal either
                    raise AgreedError(
                        f"health: {where} trains another model than {reports[0][0]}: at step {step} {name} has sum and "
                        f"norm {other[0]:.6g} {other[1]:.6g} against {ours[0]:.6g} {ours[1]:.6g}; wanted: the same"
                    )

    def _say(self, line: dict[str, Any]) -> None:
        if self.ranks.place.rank == 0:
            print(line, flush=True)


@torch.no_grad()
def accuracy(matcher: Matcher, inputs: Inputs, ranks: Ranks, batch_size: int) -> float:
    """The share of examples whose nearest label is the right one, in per cent; each rank measures its part."""
    places = sorted(range(len(inputs.rows)), key=lambda place: len(inputs.rows[place]))
    mine = places[ranks.place.rank :: ranks.place.world_size]
    right = 0
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(ranks.precision)
    for start in range(0, len(mine), batch_size):
        ids, mask, gold = inputs.batch(mine[start : start + batch_size], ranks.device)
        with torch.autocast(ranks.device.type, dtype, enabled=dtype is not None):
            scores = matcher(ids, mask, inputs.labels)
        right += int((scores.argmax(-1) == gold).sum())
    (correct,) = ranks.sums(right)
    return 100.0 * correct / len(inputs.rows)
