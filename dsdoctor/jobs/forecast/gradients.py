"""Gradients, the buckets that they are sent in, and what the optimizer's step takes: who holds what of them, when.

Read off the largest tensors of two ranks that trained (benchmarks/memory_ranks.py), with the lines that made them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from dsdoctor.jobs.forecast.parts import Part
from dsdoctor.jobs.forecast.shape import ModelShape
from dsdoctor.jobs.forecast.states import largest_trained, over, shards_of, width_of
from dsdoctor.jobs.forecast.training import Training

# ZeRO-3 steps through its partition in pieces of so many numbers (sub_group_size, DeepSpeed's default).
_SUB_GROUP = 1_000_000_000

_NOTHING = Part("", 0, "")


@dataclass(frozen=True)
class Gradients:
    """What is there of gradients at a step's moments."""

    kept: list[Part]  # at the end of the backward pass
    buckets: list[Part] = field(default_factory=list)
    left: list[Part] = field(default_factory=list)  # at its start, from before
    stepping: list[Part] = field(default_factory=list)  # while the optimizer steps
    step: Part = _NOTHING  # and what that takes beside them
    norm: Part = _NOTHING  # while a gradient goes to the host
    last: Part = _NOTHING  # while the last gradients are reduced


def gradients_of(shape: ModelShape, training: Training, trainable: int) -> Gradients:
    """The gradients of a rank."""
    if training.engine == "deepspeed" and training.zero.stage >= 1:
        return _zero(shape, training, trainable)
    width, shards = width_of(training), shards_of(training, "gradients")
    here = -(-trainable * width // shards)
    parts = [Part("gradients", here, f"{trainable:,} in {8 * width} bits" + over(shards))]
    last = _NOTHING
    if training.engine == "ddp" and training.ranks > 1:
        parts.append(Part("gradient buckets", trainable * width, "DDP's copies (gradient_as_bucket_view is off)"))
    if training.engine == "deepspeed" and training.precision == "mixed":
        parts.append(Part("fp32 gradients", 4 * trainable, "DeepSpeed's 16-bit optimizers add up in fp32"))
    if training.engine == "fsdp":
        outer = 0 if training.lora is not None else shape.outside
        last = Part("last gradients", 2 * outer * width, "of what is in no layer: whole, and in a buffer to be sent")
    left = parts if training.accumulation > 1 else parts[1:] if training.engine == "ddp" else []
    foreach = trainable * width // shards if training.foreach else 0
    step = Part("optimizer step", foreach, "temporaries of the step")
    return Gradients(parts, left=left, stepping=parts, step=step, last=last)


def _zero(shape: ModelShape, training: Training, trainable: int) -> Gradients:
    """ZeRO: stage 1 reduces at the end of the backward pass, 2 and 3 on the way.

    The buffer of a bucket has all its elements however few are trained. In the step the partition is flattened into a
    copy and turned into fp32; the buckets of stages 1 and 2 are gone by then. An offloaded gradient's norm is computed
    in 64 bits on the card.
    """
    zero, width = training.zero, width_of(training)
    elements = zero.reduce_bucket or shape.hidden**2
    twice = 2 if zero.overlap else 1
    buckets = [Part("gradient buckets", elements * width * twice, f"{elements:,} elements each")]
    largest, shards = largest_trained(shape, training), training.ranks
    if zero.optimizer_on != "gpu":
        way = width * largest if zero.stage < 3 else 0
        numbers = largest if zero.stage < 3 else -(-largest // shards)
        norm = Part("gradient on its way", way + 8 * numbers, "to the host: the largest, and in 64 bits for its norm")
        return Gradients([], buckets, buckets if zero.stage == 3 else [Part("", way, "")], norm=norm)
    own = -(-trainable // shards)
    words = f"{trainable:,} in {8 * width} bits"
    partition = Part("gradients", own * width, words + over(shards))
    whole = Part("gradients", trainable * width, f"{words}, whole until they are reduced")
    kept = [partition] if zero.stage >= 2 else [whole, Part("reduced gradients", own * width, words + over(shards))]
    piece = min(own, _SUB_GROUP) if zero.stage == 3 else own
    step = Part("optimizer step", piece * (width if width == 4 else width + 4), "the gradients flattened, and in fp32")
    if zero.stage == 3:
        return Gradients(kept, buckets, [partition, *buckets], [partition, *buckets], step)
    return Gradients(kept, buckets, kept[:1] if training.accumulation > 1 else [], [partition], step)
