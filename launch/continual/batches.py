"""How a global batch is dealt out to unlike ranks, and in which order the examples come."""

from __future__ import annotations

import math
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass

from continual import ContinualError

PER_DEVICE, SHARE = "CONTINUAL_PER_DEVICE_TRAIN_BATCH_SIZE", "CONTINUAL_BATCH_SHARE"
DEFAULT_PER_DEVICE = 8


@dataclass(frozen=True)
class Capacity:
    """What one rank can take. `per_device`: examples at once; `share`: its part of the batch, relative to the others'.

    Without shares the sizes decide, where every rank has one: then all are done with equally many micro-batches.
    """

    per_device: int | None = None
    share: float | None = None

    @classmethod
    def here(cls, per_device: int | None = None, share: float | None = None) -> Capacity:
        """This host's own, from the environment, else the given ones, which all hosts have alike.

        Raises:
            ContinualError: a variable that is no such number.
        """
        return cls(_from_environment(PER_DEVICE, int, per_device), _from_environment(SHARE, float, share))


def _from_environment(name: str, kind: type, default: float | None) -> int | None:
    text = os.environ.get(name, "")
    if not text:
        return default  # type: ignore[return-value]
    try:
        value = kind(text)
        if not (math.isfinite(value) and value > 0):
            raise ValueError
    except ValueError:
        raise ContinualError(f"environment: {name}={text!r}: wanted a number above 0") from None
    return value  # type: ignore[no-any-return]


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
    """Divide the global batch among like ranks and micro-batches; see `deal_to`."""
    return deal_to([Capacity(per_device)] * world_size, global_size, accumulation)


def deal_to(ranks: Sequence[Capacity], global_size: int | None = None, accumulation: int | None = None) -> Batches:
    """Divide the global batch among ranks and micro-batches; what is not given follows from the rest.

    Without a global size it is the sum of the ranks' sizes (8) * accumulation (1). With one, it holds exactly: each
    rank gets its part to within one example, and no micro-batch is larger than its rank's size.

    Raises:
        ContinualError: the given numbers contradict each other, or a rank would go without an example.
    """
    world_size = len(ranks)
    sizes = [rank.per_device for rank in ranks]
    if global_size is None:
        accumulation = accumulation or 1
        global_size = sum(size or DEFAULT_PER_DEVICE for size in sizes) * accumulation
        sizes = [size or DEFAULT_PER_DEVICE for size in sizes]
    elif (
        accumulation and len(set(sizes)) == 1 and (same := sizes[0]) and same * accumulation * world_size != global_size
    ):
        raise ContinualError(
            f"--global_batch_size {global_size}: --per_device_train_batch_size {same} * "
            f"--gradient_accumulation_steps {accumulation} * world size {world_size} is "
            f"{same * accumulation * world_size}\n  leave one of the two out, and it is derived"
        )
    if global_size < world_size:
        raise ContinualError(
            f"--global_batch_size {global_size}: less than one example for each of {world_size} ranks; "
            f"wanted at least {world_size}"
        )
    shares = _apportion(global_size, _weights(ranks, sizes))
    steps = accumulation or max(
        math.ceil(share / (size or max(shares))) for share, size in zip(shares, sizes, strict=True)
    )
    for rank, (share, size) in enumerate(zip(shares, sizes, strict=True)):
        if size and share > size * steps:
            raise ContinualError(
                f"--global_batch_size {global_size}: rank {rank} gets {share} of it, and can take {size} at once * "
                f"--gradient_accumulation_steps {steps} = {size * steps}\n"
                f"  leave --gradient_accumulation_steps out, and it is derived, or change {SHARE} there"
            )
    return Batches(global_size, tuple(_split(share, steps) for share in shares))


def _weights(ranks: Sequence[Capacity], sizes: Sequence[int | None]) -> list[float]:
    """What each rank's part is in proportion to."""
    shares = [rank.share for rank in ranks]
    if any(share is not None for share in shares):
        missing = [rank for rank, share in enumerate(shares) if share is None]
        if missing:
            raise ContinualError(
                f"{SHARE}: rank {missing[0]} has none, others have; wanted one on every host, or on none"
            )
        return [float(share or 0) for share in shares]
    return [float(size or 1) for size in sizes] if all(sizes) else [1.0] * len(sizes)


def _apportion(total: int, weights: Sequence[float]) -> list[int]:
    """Whole parts in proportion to the weights, none 0: one each, and the rest by the largest remainder."""
    exact = [total * weight / sum(weights) for weight in weights]
    parts = [max(1, math.floor(part + 1e-9)) for part in exact]
    while sum(parts) > total:  # tiny weights were lifted to 1
        parts[max(range(len(parts)), key=lambda rank: (parts[rank] > 1, parts[rank] - exact[rank], parts[rank]))] -= 1
    remainders = sorted(range(len(parts)), key=lambda rank: (parts[rank] - exact[rank], rank))
    for place in range(total - sum(parts)):
        parts[remainders[place % len(parts)]] += 1
    return parts


def _split(share: int, steps: int) -> tuple[int, ...]:
    """A share in nearly equal parts, the smaller ones first."""
    return tuple(share // steps + (step >= steps - share % steps) for step in range(steps))


def order_of_examples(count: int, needed: int, seed: int) -> list[int]:
    """The examples in the order they are trained on: each epoch shuffled anew, one after the other without a gap."""
    if count <= 0 < needed:
        raise ContinualError(f"health: the data is exhausted: {count} examples to train on, {needed} wanted")
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


def mixed(count: int, kept: int, share: int, steps: int, size: int, seed: int) -> list[int]:
    """The examples in the order they are trained on, `share` of each global batch from `kept` ones of earlier tasks.

    Those have the places after the `count` of this task; each list is gone through evenly, shuffled anew each time.
    """
    new = order_of_examples(count, steps * (size - share), seed)
    if not share:
        return new
    old = [count + place for place in order_of_examples(kept, steps * share, seed)]
    places: list[int] = []
    for step in range(steps):
        places += new[step * (size - share) : (step + 1) * (size - share)] + old[step * share : (step + 1) * share]
    return places
