"""Optimizer states and fp32 masters, over how many ranks a thing is spread, and what is offloaded to the host."""

from __future__ import annotations

from typing import Literal

from dsdoctor.jobs.forecast.activations import lora_linears
from dsdoctor.jobs.forecast.parts import Part
from dsdoctor.jobs.forecast.shape import ModelShape
from dsdoctor.jobs.forecast.training import Training


def width_of(training: Training) -> int:
    """Bytes of a weight that is trained."""
    return 4 if training.precision in ("fp32", "autocast") else 2


def shards_of(training: Training, what: Literal["states", "gradients", "weights"]) -> int:
    """Over how many ranks a thing is spread. FSDP's shard_grad_op spreads weights, too, but between steps alone."""
    if training.engine == "fsdp":
        return training.ranks
    if training.engine != "deepspeed":
        return 1
    needed = {"states": 1, "gradients": 2, "weights": 3}[what]
    return training.ranks if training.zero.stage >= needed else 1


def over(shards: int) -> str:
    """` over 4 ranks`, nothing for one."""
    return f" over {shards} ranks" if shards > 1 else ""


def state_sizes(training: Training, trainable: int) -> list[tuple[str, int, str]]:
    """Each kind of state: its name, bytes of all ranks together, and what it is made of."""
    width = 2 if training.precision == "pure16" and training.lora is None else 4
    each = {"adamw": 2 * width, "adamw_8bit": 2, "adafactor": 0, "sgd": 0, "momentum": width}[training.optimizer]
    found = [("optimizer states", each * trainable, f"{training.optimizer}: {each} bytes each")]
    # DeepSpeed's ZeRO clones the trained parameters into fp32 partitions whatever their own width.
    zero = training.engine == "deepspeed" and training.zero.stage >= 1
    if training.precision == "mixed" or zero:
        found.append(("fp32 masters", 4 * trainable, "fp32 copy of what is trained"))
    return found


def largest_trained(shape: ModelShape, training: Training) -> int:
    """Numbers in the largest tensor that is trained."""
    if training.lora is not None:
        found = (training.lora.rank * max(each.inputs, each.outputs) for each in lora_linears(shape, training.lora))
        return max(found, default=0)
    return max(shape.vocabulary * shape.hidden, *(each.inputs * each.outputs for each in shape.linears))


def offloaded(shape: ModelShape, training: Training, count: int, trainable: int) -> tuple[Part, ...]:
    """What a rank keeps in the host's memory because it is offloaded there.

    Beside states, masters and fp32 gradients: stages 1 and 2 keep the new weights there until they are copied to the
    card, and room for one gradient on its way (stage_1_and_2.py, param_buffer_of_bit16_for_cpu_offload_groups and
    temp_grad_buffer_for_cpu_offload); stage 3 the partition of the gradients (stage3.py, grad_partitions_flat_buffer).
    Measured by benchmarks/memory_ranks.py.
    """
    if training.engine != "deepspeed":
        return ()
    parts = []
    shards, width = shards_of(training, "states"), width_of(training)
    if training.zero.optimizer_on == "cpu":
        states = sum(size for _, size, _ in state_sizes(training, trainable))
        size = -(-(states + 4 * trainable) // shards)
        parts.append(Part("optimizer", size, "states, masters and fp32 gradients" + over(shards)))
        words = "gradients" if training.zero.stage == 3 else "new weights"
        parts.append(Part("copies", -(-width * trainable // shards), f"{words} in {8 * width} bits" + over(shards)))
        if training.zero.stage < 3:
            one = width * largest_trained(shape, training)
            parts.append(Part("gradient on its way", one, "as large as the largest matrix that is trained"))
    if training.zero.parameters_on == "cpu" and training.zero.stage == 3:
        size = -(-count * width // training.ranks)
        parts.append(Part("weights", size, "offloaded parameters, pinned" + over(training.ranks)))
    return tuple(parts)
