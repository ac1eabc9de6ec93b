"""What two ranks hold of tensors when they train together on the CPU, for `benchmarks.memory_forecast`.

DeepSpeed's ZeRO in its stages with and without offload, torch's DDP and FSDP, over gloo. A CPU is here both the card
and its host: what is offloaded is measured with the rest, and compared with both sides of the forecast together.
`python -m benchmarks.memory_ranks NAME…` starts the ranks; each prints a line of JSON a training.
"""

from __future__ import annotations

import gc
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.memory_forecast import GPT2, LLAMA, MIB, SHORT, SMOLLM, build, watch
from dsdoctor.jobs.forecast.memory import forecast
from dsdoctor.jobs.forecast.shape import shape_of
from dsdoctor.jobs.forecast.training import Lora, Training, Zero

RANKS = 2
TWO = replace(SHORT, ranks=RANKS)
# The Trainer's "auto" makes the bucket hidden size squared; the other size holds several layers.
AUTO = LLAMA["hidden_size"] ** 2
LARGE = 2_000_000


def _zero(stage: int, bucket: int = LARGE, base: Training = TWO, **more: Any) -> Training:
    return replace(base, engine="deepspeed", zero=Zero(stage, reduce_bucket=bucket, **more))


HALF = replace(TWO, precision="mixed")
LONE = replace(HALF, micro_batch=1, length=64)
# So short that the optimizer's step is the worst moment, not the loss.
BRIEF = replace(HALF, micro_batch=1, length=16)
TOGETHER: tuple[tuple[str, dict[str, Any], Training], ...] = (
    ("LLaMA 6M, DDP", LLAMA, replace(TWO, engine="ddp")),
    ("LLaMA 6M, FSDP", LLAMA, replace(TWO, engine="fsdp")),
    ("LLaMA 6M, FSDP, shard_grad_op", LLAMA, replace(TWO, engine="fsdp", shards_parameters=False)),
    ("LLaMA 6M, stage 0", LLAMA, _zero(0)),
    ("LLaMA 6M, ZeRO-1", LLAMA, _zero(1)),
    ("LLaMA 6M, ZeRO-1, bf16", LLAMA, _zero(1, base=HALF)),
    ("LLaMA 6M, ZeRO-2", LLAMA, _zero(2)),
    ("LLaMA 6M, ZeRO-2, bf16", LLAMA, _zero(2, base=HALF)),
    ("LLaMA 6M, ZeRO-2, bf16, bucket auto", LLAMA, _zero(2, AUTO, base=HALF)),
    ("LLaMA 6M, ZeRO-2, overlap", LLAMA, _zero(2, overlap=True)),
    ("LLaMA 6M, ZeRO-2, bf16, accumulation 2", LLAMA, _zero(2, base=replace(HALF, accumulation=2))),
    ("LLaMA 6M, ZeRO-2, optimizer offloaded", LLAMA, _zero(2, base=HALF, optimizer_on="cpu")),
    ("LLaMA 6M, ZeRO-2, LoRA, bf16", LLAMA, _zero(2, base=replace(HALF, lora=Lora()))),
    ("LLaMA 6M, ZeRO-2, checkpointing", LLAMA, _zero(2, base=replace(HALF, checkpointing=True))),
    ("LLaMA 6M, ZeRO-3", LLAMA, _zero(3)),
    ("LLaMA 6M, ZeRO-3, bf16", LLAMA, _zero(3, base=HALF)),
    ("LLaMA 6M, ZeRO-3, optimizer offloaded", LLAMA, _zero(3, base=HALF, optimizer_on="cpu")),
    ("LLaMA 6M, ZeRO-3, all offloaded", LLAMA, _zero(3, base=HALF, optimizer_on="cpu", parameters_on="cpu")),
    ("LLaMA 6M, short, DDP, fp32", LLAMA, replace(BRIEF, precision="fp32", engine="ddp")),
    ("LLaMA 6M, short, FSDP, fp32", LLAMA, replace(BRIEF, precision="fp32", engine="fsdp")),
    ("LLaMA 6M, short, stage 0, bf16", LLAMA, _zero(0, base=BRIEF)),
    ("LLaMA 6M, short, ZeRO-1, bf16", LLAMA, _zero(1, base=BRIEF)),
    ("LLaMA 6M, short, ZeRO-2, bf16", LLAMA, _zero(2, base=BRIEF)),
    ("LLaMA 6M, short, ZeRO-2, fp32", LLAMA, _zero(2, base=replace(BRIEF, precision="fp32"))),
    ("LLaMA 6M, short, ZeRO-2, offloaded", LLAMA, _zero(2, base=BRIEF, optimizer_on="cpu")),
    ("LLaMA 6M, short, ZeRO-3, bf16", LLAMA, _zero(3, base=BRIEF)),
    ("LLaMA 6M, short, ZeRO-3, offloaded", LLAMA, _zero(3, base=BRIEF, optimizer_on="cpu", parameters_on="cpu")),
    ("LLaMA 6M, short, ZeRO-2, LoRA, bucket auto", LLAMA, _zero(2, AUTO, base=replace(BRIEF, lora=Lora()))),
    ("LLaMA 6M, short, ZeRO-2, LoRA, large bucket", LLAMA, _zero(2, 5_000_000, base=replace(BRIEF, lora=Lora()))),
    # Not looked at while the forecast was made: other models, other sizes.
    ("GPT-2 4M, ZeRO-2, fp32", GPT2, _zero(2, 300_000)),
    ("GPT-2 4M, ZeRO-1, bf16, accumulation 3", GPT2, _zero(1, 300_000, base=replace(BRIEF, accumulation=3))),
    ("GPT-2 4M, ZeRO-3, bf16, LoRA", GPT2, _zero(3, 100_000, base=replace(HALF, lora=Lora(4)))),
    ("GPT-2 4M, DDP, accumulation 2", GPT2, replace(TWO, engine="ddp", accumulation=2)),
    ("GPT-2 4M, FSDP, checkpointing", GPT2, replace(TWO, engine="fsdp", checkpointing=True)),
    ("SmolLM2 135M, ZeRO-2, offloaded", SMOLLM, _zero(2, 5_000_000, base=LONE, optimizer_on="cpu")),
    ("SmolLM2 135M, ZeRO-3, bf16", SMOLLM, _zero(3, 5_000_000, base=LONE)),
    ("SmolLM2 135M, ZeRO-2, bf16", SMOLLM, _zero(2, 5_000_000, base=LONE)),
)


@dataclass(frozen=True)
class Together:
    """The most bytes of tensors on a rank as measured and as forecast, card and host together."""

    name: str
    measured: int
    forecast: int
    estimator: int | None = None  # DeepSpeed's own, of model states alone; card and its part of the host

    @property
    def error(self) -> float:
        """Of the forecast, as a part of what was measured."""
        return self.forecast / self.measured - 1


def settings(training: Training) -> dict[str, Any]:
    """The DeepSpeed config of a training."""
    zero: dict[str, Any] = {
        "stage": training.zero.stage,
        "reduce_bucket_size": training.zero.reduce_bucket,
        "allgather_bucket_size": training.zero.reduce_bucket,
        "overlap_comm": training.zero.overlap,
        "contiguous_gradients": True,
    }
    if training.zero.stage == 3:
        zero |= {"stage3_max_live_parameters": training.zero.max_live, "stage3_param_persistence_threshold": 0}
        zero |= {"stage3_prefetch_bucket_size": training.zero.reduce_bucket}
    if training.zero.optimizer_on == "cpu":
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": False}
    if training.zero.parameters_on == "cpu":
        zero["offload_param"] = {"device": "cpu", "pin_memory": False}
    return {
        "train_micro_batch_size_per_gpu": training.micro_batch,
        "gradient_accumulation_steps": training.accumulation,
        "zero_optimization": zero,
        "zero_force_ds_cpu_optimizer": False,  # its own is compiled first, and holds the same states
        "zero_allow_untested_optimizer": True,
        "bf16": {"enabled": training.precision == "mixed"},
    }


def _optimizer(model: Any) -> Any:
    import torch

    return torch.optim.AdamW([each for each in model.parameters() if each.requires_grad], foreach=False, fused=True)


def _step_of_deepspeed(model: Any, training: Training) -> Any:
    import deepspeed

    engine, *_ = deepspeed.initialize(model=model, optimizer=_optimizer(model), config=settings(training))

    def step(batches: Any) -> None:
        for ids in batches:
            loss = engine(input_ids=ids, labels=ids).loss
            engine.backward(loss)
            del loss
            engine.step()

    step.done = engine.destroy  # type: ignore[attr-defined]
    return step


def _step_of_torch(model: Any, training: Training) -> Any:
    import torch
    from torch.distributed.fsdp import fully_shard

    if training.engine == "ddp":
        wrapped = torch.nn.parallel.DistributedDataParallel(model)
    else:
        for layer in model.model.layers if hasattr(model, "model") else model.transformer.h:
            fully_shard(layer, reshard_after_forward=training.shards_parameters)
        wrapped = fully_shard(model, reshard_after_forward=training.shards_parameters)
    optimizer = _optimizer(model)

    def step(batches: Any) -> None:
        for ids in batches:
            loss = wrapped(input_ids=ids, labels=ids).loss
            loss.backward()
            del loss
        optimizer.step()
        optimizer.zero_grad()

    return step


def peak(config: dict[str, Any], training: Training) -> int:
    """The most bytes of this rank's tensors in the second step."""
    import torch

    torch.manual_seed(0)
    with watch() as alive:
        model = build(config, training)
        made = _step_of_deepspeed if training.engine == "deepspeed" else _step_of_torch
        step = made(model, training)
        del model
        for _ in range(2):
            gc.collect()
            alive.peak = alive.now
            shape = (training.accumulation, training.micro_batch, training.length)
            step(torch.randint(1, config["vocab_size"], shape))
    most = int(alive.peak)
    getattr(step, "done", lambda: None)()
    return most


def rank(names: list[str]) -> None:
    """One rank: each training in turn, a line of JSON for it."""
    import deepspeed
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    deepspeed.init_distributed("gloo", auto_mpi_discovery=False)
    for name, config, training in TOGETHER:
        if name in names:
            print(json.dumps({"name": name, "bytes": peak(config, training)}), flush=True)
            gc.collect()
            torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def start(names: list[str]) -> dict[str, int]:
    """Starts the ranks and gives what the largest of them held, by the trainings' names.

    Raises:
        RuntimeError: a rank failed; the end of what it wrote is in it.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    base = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(RANKS), "OMP_NUM_THREADS": "1"}
    base |= {"DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "benchmarks.memory_ranks", "--rank", *names]
    ranks = [
        subprocess.Popen(
            command,
            env=os.environ | base | {"RANK": str(number), "LOCAL_RANK": str(number)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for number in range(RANKS)
    ]
    try:
        written = [each.communicate()[0] for each in ranks]
    finally:
        for each in ranks:
            each.kill()
    found: dict[str, int] = {}
    for process, text in zip(ranks, written, strict=True):
        if process.returncode:
            raise RuntimeError(text[-3000:])
        for line in text.splitlines():
            if line.startswith('{"name"'):
                value = json.loads(line)
                found[value["name"]] = max(found.get(value["name"], 0), value["bytes"])
    return found


def together(names: list[str] | None = None) -> Iterator[Together]:
    """Every training of two ranks, run and forecast."""
    wanted = [each for each in TOGETHER if names is None or each[0] in names]
    measured = start([name for name, _, _ in wanted])
    for name, config, training in wanted:
        found = forecast(shape_of(dict(config)), training)
        yield Together(name, measured[name], found.tensors + found.ram, estimated(config, training))


def estimated(config: dict[str, Any], training: Training) -> int | None:
    """What DeepSpeed's estimators of model states say of a rank, None where there is none for the stage."""
    zero = training.zero
    if training.engine != "deepspeed" or zero.stage < 2:
        return None
    shape = shape_of(dict(config))
    if zero.stage == 2:
        from deepspeed.runtime.zero.stage_1_and_2 import estimate_zero2_model_states_mem_needs

        host, card = estimate_zero2_model_states_mem_needs(
            shape.parameters, RANKS, 1, cpu_offload=zero.optimizer_on == "cpu", additional_buffer_factor=1
        )
    else:
        from deepspeed.runtime.zero.stage3 import estimate_zero3_model_states_mem_needs

        host, card, _ = estimate_zero3_model_states_mem_needs(
            shape.parameters,
            shape.layer,
            RANKS,
            1,
            cpu_offload=zero.optimizer_on == "cpu",
            cpu_offload_params=zero.parameters_on == "cpu",
            zero_init=False,
            additional_buffer_factor=1,
        )
    return int(card + (host / RANKS if zero.optimizer_on == "cpu" else 0))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--rank"]:
        rank(sys.argv[2:])
    else:
        for row in together(sys.argv[1:] or None):
            figures = f"{row.measured / MIB:.1f} | {row.forecast / MIB:.1f} | {100 * row.error:+.1f} %"
            print(f"| {row.name} | {figures} |")
