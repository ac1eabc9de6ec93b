"""Starts real trainings of two steps on CPU, one after the other: what transformers and DeepSpeed make of a pair.

    python -m tests.judges.worker < pairs.jsonl > outcomes.jsonl

A pair is `{"config": {…}, "argv": ["--learning_rate", "1e-3", …], "alone": false}`. With `alone` a script is meant
that calls `deepspeed.initialize` itself. torch, transformers and DeepSpeed are loaded once; each pair has its own
forked process, so that nothing that one leaves behind reaches the next.

What would be compiled for minutes is stood in for, as its sums are not asked for: the kernels of DeepSpeed's own Adam.
The classes around them, with their arguments and their checks, are the real ones.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import tempfile
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

HIDDEN = 8
ROWS = 64
# What is loaded at the first use only, which would be anew in every fork.
LOADED_LATE = ("transformers.trainer", "accelerate", "deepspeed.runtime.zero.muon.muon_optimizer", "torch.utils.data")
LIMIT = 300  # seconds for one pair: a hang is told, not waited for


def main() -> None:
    """Answer each line of standard input with one on standard output."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what the libraries print is no answer
    load()
    gc.freeze()  # what all forks share need not be looked through in each
    for line in sys.stdin:
        answers.write(json.dumps(in_own_process(json.loads(line))) + "\n")


def load() -> None:
    """Import what all pairs need, and stand in for the compiled kernels."""
    os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    os.environ |= {"DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    from deepspeed.ops.op_builder.cpu import CPUAdamBuilder, FusedAdamBuilder

    for name in (
        "transformers.trainer",
        "accelerate",
        "deepspeed.runtime.zero.muon.muon_optimizer",
        "torch.utils.data",
    ):
        import_module(name)  # each would be loaded late, and so anew in every fork
    # gloo alone carries what one rank sends itself. By its name, as deepspeed.comm also calls torch itself so.
    import_module("deepspeed.comm.torch").build_shm_op = lambda: None
    cpuinfo = import_module("cpuinfo")  # DeepSpeed's Adam asks it for the maker, which takes it a second each time
    known = cpuinfo.get_cpu_info()
    cpuinfo.get_cpu_info = lambda: known
    kernels = dict.fromkeys(("create_adam", "destroy_adam", "adam_update", "multi_tensor_adam"), _no_sums)
    for builder in (CPUAdamBuilder, FusedAdamBuilder):
        builder.load = lambda self, verbose=True: SimpleNamespace(**kernels)


def _no_sums(*_: Any, **__: Any) -> None:
    return None


def in_own_process(pair: dict[str, Any]) -> dict[str, Any]:
    """What became of a pair, in a process forked for it."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        signal.alarm(LIMIT)
        with os.fdopen(writing, "w") as back:
            back.write(json.dumps(outcome_of(pair)))
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        text = answer.read()
    _, status = os.waitpid(child, 0)
    return json.loads(text) if text else {"raised": f"the process ended with status {status}"}


def outcome_of(pair: dict[str, Any]) -> dict[str, Any]:
    """The exception that a pair ends with, or what was really trained with."""
    seen: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(sys.stderr):
        try:
            (alone if pair.get("alone") else under_the_trainer)(pair, Path(folder), seen)
        except (Exception, SystemExit) as error:
            return {**seen, "raised": f"{type(error).__name__}: {error}"}
    return {**seen, "raised": None}


def model() -> Any:
    """Two linear layers with a configuration, as `auto` wants one."""
    import torch
    from transformers import PretrainedConfig, PreTrainedModel

    class Tiny(PreTrainedModel):
        config_class = PretrainedConfig

        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.first = torch.nn.Linear(HIDDEN, HIDDEN)
            self.second = torch.nn.Linear(HIDDEN, 1)
            self.post_init()

        def forward(self, x: Any, labels: Any) -> dict[str, Any]:
            out = self.second(self.first(x.to(self.first.weight.dtype)))
            return {"loss": ((out.squeeze(-1) - labels) ** 2).mean(), "logits": out}

    return Tiny(PretrainedConfig(hidden_size=HIDDEN))


def rows() -> list[dict[str, Any]]:
    """Data of a model that could learn it."""
    import torch

    return [{"x": torch.full((HIDDEN,), row / ROWS), "labels": torch.tensor(row / ROWS)} for row in range(ROWS)]


def under_the_trainer(pair: dict[str, Any], folder: Path, seen: dict[str, Any]) -> None:
    """A program of the usual kind: arguments parsed, a Trainer made, trained."""
    from transformers import HfArgumentParser, Trainer, TrainerCallback, TrainingArguments

    (folder / "ds.json").write_text(pair.get("text") or json.dumps(pair["config"]))
    argv = ["--output_dir", str(folder / "out"), "--deepspeed", str(folder / "ds.json"), *pair["argv"]]
    argv += ["--use_cpu", "--report_to", "none", "--save_strategy", "no", "--disable_tqdm", "true"]
    (arguments,) = HfArgumentParser(TrainingArguments).parse_args_into_dataclasses(argv)

    class Watch(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
            engine = trainer.model_wrapped
            seen.setdefault("rates", []).append(engine.optimizer.param_groups[0]["lr"])
            seen.update(settings_of(engine))

    trainer = Trainer(model=model(), args=arguments, train_dataset=rows(), callbacks=[Watch()])
    trainer.train()
    seen["trained"] = True


def alone(pair: dict[str, Any], folder: Path, seen: dict[str, Any]) -> None:
    """A script that hands the config to DeepSpeed itself, and brings an optimizer where the config has none."""
    import deepspeed
    import torch

    (folder / "ds.json").write_text(pair.get("text") or json.dumps(pair["config"]))
    deepspeed.init_distributed(dist_backend="gloo")
    layers = model()
    own = None if "optimizer" in pair["config"] else torch.optim.AdamW(layers.parameters(), lr=1e-3)
    engine, *_ = deepspeed.initialize(
        model=layers, model_parameters=layers.parameters(), optimizer=own, config=str(folder / "ds.json")
    )
    seen.update(settings_of(engine))
    data = torch.utils.data.default_collate(rows()[: engine.train_micro_batch_size_per_gpu()])
    for _ in range(2 * engine.gradient_accumulation_steps()):
        if engine.is_gradient_accumulation_boundary():
            seen.setdefault("rates", []).append(engine.optimizer.param_groups[0]["lr"])
        engine.backward(engine(**data)["loss"])
        engine.step()
    seen["trained"] = True


def settings_of(engine: Any) -> dict[str, Any]:
    """What DeepSpeed's engine really runs with."""
    precision = "bf16" if engine.bfloat16_enabled() else "fp16" if engine.fp16_enabled() else "fp32"
    scheduler = engine.lr_scheduler
    return {
        "precision": precision,
        "weights": str(next(engine.module.parameters()).dtype).removeprefix("torch."),
        "scheduler": type(getattr(scheduler, "scheduler", scheduler)).__name__,
        "micro_batch": engine.train_micro_batch_size_per_gpu(),
        "accumulation": engine.gradient_accumulation_steps(),
        "batch": engine.train_batch_size(),
        "clipping": engine.gradient_clipping(),
        "stage": engine.zero_optimization_stage(),
        "weight_decay": engine.optimizer.param_groups[0].get("weight_decay"),
    }


if __name__ == "__main__":
    main()
