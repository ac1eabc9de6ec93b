"""The memory forecast against trainings that really run, and against the estimators that others have.

Each training is a plain loop of two optimizer steps on the CPU. A dispatch mode of torch's sees every operation and
adds up the bytes of all storages that are alive; their peak in the second step is what the forecast's tensors must
equal. Random weights: only sizes count. DeepSpeed's figure is its own ZeRO-2 estimator, accelerate's is the "Training
using Adam" of `accelerate estimate-memory`; both leave activations out.
"""

from __future__ import annotations

import gc
import warnings
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from dsdoctor.jobs.forecast.evaluation import evaluating
from dsdoctor.jobs.forecast.memory import forecast
from dsdoctor.jobs.forecast.shape import shape_of
from dsdoctor.jobs.forecast.training import Lora, Training

MIB = 1 << 20
LLAMA = {
    "model_type": "llama",
    "hidden_size": 256,
    "num_hidden_layers": 6,
    "intermediate_size": 688,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "vocab_size": 4000,
}
# SmolLM2-135M, by its config.json: 134.5 million parameters.
SMOLLM = {
    "model_type": "llama",
    "hidden_size": 576,
    "num_hidden_layers": 30,
    "intermediate_size": 1536,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
    "tie_word_embeddings": True,
}
GPT2 = {"model_type": "gpt2", "n_embd": 256, "n_layer": 4, "n_head": 8, "vocab_size": 4000}
GPT2 |= {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}  # masks have another size on the CPU
T5 = {"model_type": "t5", "d_model": 256, "d_ff": 1024, "d_kv": 32, "num_layers": 4, "num_heads": 8}
T5 |= {"vocab_size": 4000, "dropout_rate": 0.0, "decoder_start_token_id": 0, "pad_token_id": 0}
# all-MiniLM-L6-v2, the built-in encoder of the shipped job, by its config.json; a masked word's loss stands in.
MINILM = {
    "model_type": "bert",
    "hidden_size": 384,
    "num_hidden_layers": 6,
    "intermediate_size": 1536,
    "num_attention_heads": 12,
    "vocab_size": 30522,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
SHORT = Training(micro_batch=4, length=128)
ALL = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")

SETTINGS: tuple[tuple[str, dict[str, Any], Training], ...] = (
    ("LLaMA 6M, fp32", LLAMA, SHORT),
    ("LLaMA 6M, one short sample", LLAMA, replace(SHORT, micro_batch=1, length=16)),
    ("LLaMA 6M, accumulation 2", LLAMA, replace(SHORT, accumulation=2)),
    ("LLaMA 6M, checkpointing", LLAMA, replace(SHORT, checkpointing=True)),
    ("LLaMA 6M, eager attention", LLAMA, replace(SHORT, attention="eager")),
    ("LLaMA 6M, all in bf16", LLAMA, replace(SHORT, precision="pure16")),
    ("LLaMA 6M, bf16, foreach AdamW", LLAMA, Training("pure16", foreach=True, micro_batch=1, length=16)),
    ("LLaMA 6M, autocast", LLAMA, replace(SHORT, precision="autocast")),
    ("LLaMA 6M, SGD", LLAMA, replace(SHORT, optimizer="sgd")),
    ("LLaMA 6M, LoRA", LLAMA, replace(SHORT, lora=Lora())),
    ("LLaMA 6M, LoRA on all, bf16", LLAMA, replace(SHORT, precision="pure16", lora=Lora(8, ALL))),
    ("GPT-2 4M, fp32", GPT2, SHORT),
    ("T5 8M, fp32", T5, replace(SHORT, target_length=32)),
    ("T5 8M, LoRA, eager", T5, replace(SHORT, target_length=32, lora=Lora(), attention="eager")),
    ("MiniLM 23M, masked words", MINILM, replace(SHORT, length=64, vocabulary_loss=True)),
    ("SmolLM2 135M, fp32", SMOLLM, replace(SHORT, micro_batch=1, length=64)),
    ("SmolLM2 135M, bf16, LoRA", SMOLLM, replace(SHORT, precision="pure16", lora=Lora(), micro_batch=2)),
)
EVALUATED = replace(SHORT, eval_batch=16)
EVALUATIONS: tuple[tuple[str, dict[str, Any], Training], ...] = (
    ("LLaMA 6M, evaluating", LLAMA, EVALUATED),
    ("LLaMA 6M, generating", LLAMA, replace(EVALUATED, new_tokens=20)),
    ("LLaMA 6M, bf16, evaluating", LLAMA, replace(EVALUATED, precision="pure16")),
    ("LLaMA 6M, bf16, generating", LLAMA, replace(EVALUATED, precision="pure16", new_tokens=20)),
    ("T5 8M, evaluating", T5, replace(EVALUATED, target_length=32)),
    ("T5 8M, generating", T5, replace(EVALUATED, target_length=32, new_tokens=20)),
)


@dataclass(frozen=True)
class Row:
    """A training's peak as measured and as forecast, in bytes, and what others say of its model."""

    name: str
    measured: int
    forecast: int
    deepspeed: int | None = None
    accelerate: int | None = None

    @property
    def error(self) -> float:
        """Of the forecast, as a part of what was measured."""
        return self.forecast / self.measured - 1


def watch() -> Any:
    """A dispatch mode that counts the bytes of the storages alive (`now`) and the most that they were (`peak`)."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    class Alive(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.now = self.peak = 0
            self.sizes: dict[int, int] = {}

        def __enter__(self) -> Any:
            resize = torch.UntypedStorage.resize_

            def resized(storage: Any, size: int) -> Any:  # FSDP empties and fills its parameters so
                done = resize(storage, size)
                if storage._cdata in self.sizes:
                    self.add(storage._cdata, storage.nbytes() - self.sizes[storage._cdata])
                return done

            torch.UntypedStorage.resize_ = resized
            self.after = resize
            return super().__enter__()

        def __exit__(self, *raised: Any) -> Any:
            torch.UntypedStorage.resize_ = self.after
            return super().__exit__(*raised)

        def add(self, key: int, more: int) -> None:
            self.sizes[key] = self.sizes.get(key, 0) + more
            self.now += more
            self.peak = max(self.peak, self.now)

        def gone(self, key: int) -> None:
            self.now -= self.sizes.pop(key, 0)

        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = function(*args, **(kwargs or {}))
            for tensor in tree_leaves(out):
                if not isinstance(tensor, torch.Tensor) or tensor.device.type == "meta":
                    continue
                own = getattr(tensor, "_local_tensor", tensor)  # a DTensor stands for all ranks' parts
                storage = own.untyped_storage()
                if storage._cdata not in self.sizes:
                    self.add(storage._cdata, storage.nbytes())
                    weakref.finalize(storage, self.gone, storage._cdata)
            return out

    return Alive()


def build(config: dict[str, Any], training: Training) -> Any:
    """The model with random weights, as the training has it."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSeq2SeqLM

    sizes = dict(config)
    kind = sizes.pop("model_type")
    made = AutoConfig.for_model(kind, **{"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1, **sizes})
    made._attn_implementation = training.attention
    kinds = {"bert": AutoModelForMaskedLM, "t5": AutoModelForSeq2SeqLM}
    model = kinds.get(kind, AutoModelForCausalLM).from_config(made)
    model = model.to(torch.bfloat16 if training.precision == "pure16" else torch.float32).train()
    if training.lora is not None:
        from peft import LoraConfig, get_peft_model

        targets = list(training.lora.targets) or None
        with warnings.catch_warnings():  # names of transformers that peft does not follow yet
            warnings.simplefilter("ignore", FutureWarning)
            model = get_peft_model(model, LoraConfig(r=training.lora.rank, target_modules=targets))
    if training.checkpointing:
        with warnings.catch_warnings():  # the newer name is not in the releases that the project allows
            warnings.simplefilter("ignore", FutureWarning)
            model.gradient_checkpointing_enable()
        model.config.use_cache = False
    return model


def measured(config: dict[str, Any], training: Training) -> int:
    """The most bytes of tensors in the second step of the training."""
    import torch

    torch.manual_seed(0)
    words = config["vocab_size"]
    with watch() as alive:
        model = build(config, training)
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        if training.optimizer == "adamw":
            optimizer: Any = torch.optim.AdamW(trained, foreach=training.foreach, fused=not training.foreach)
        else:
            optimizer = torch.optim.SGD(trained, foreach=False)
        for _ in range(2):
            gc.collect()
            alive.peak = alive.now
            for _ in range(training.accumulation):
                ids = torch.randint(1, words, (training.micro_batch, training.length))
                labels = ids
                if training.target_length:
                    labels = torch.randint(1, words, (training.micro_batch, training.target_length))
                with torch.autocast("cpu", torch.bfloat16, enabled=training.precision == "autocast"):
                    loss = model(input_ids=ids, labels=labels).loss
                loss.backward()
                del loss
            optimizer.step()
            optimizer.zero_grad()
    return int(alive.peak)


def evaluated(config: dict[str, Any], training: Training) -> int:
    """The most bytes of tensors in an evaluation of one batch, beside the weights."""
    import torch

    torch.manual_seed(0)
    with watch() as alive:
        model = build(config, training).eval()
        weights = alive.now
        ids = torch.randint(2, config["vocab_size"], (training.eval_batch, training.length))
        alive.peak = alive.now
        with torch.no_grad():
            if training.new_tokens:
                exactly = {"max_new_tokens": training.new_tokens, "min_new_tokens": training.new_tokens}
                model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, **exactly)
            else:
                shape = (training.eval_batch, training.target_length or training.length)
                model(input_ids=ids, labels=torch.randint(2, config["vocab_size"], shape))
    return int(alive.peak) - weights


def others(config: dict[str, Any], training: Training) -> tuple[int | None, int | None]:
    """DeepSpeed's ZeRO-2 estimate on one card, and accelerate's for Adam, on the model without adapters."""
    import torch
    from accelerate.commands.estimate import estimate_training_usage
    from accelerate.utils import calculate_maximum_sizes
    from deepspeed.runtime.zero.stage_1_and_2 import estimate_zero2_model_states_mem_needs

    with torch.device("meta"):
        model = build(config, replace(training, lora=None, checkpointing=False, precision="fp32"))
    count = sum(parameter.numel() for parameter in model.parameters())
    _, theirs = estimate_zero2_model_states_mem_needs(count, 1, 1, cpu_offload=False)
    total, _ = calculate_maximum_sizes(model)
    kind = "bfloat16" if training.precision == "pure16" else "float32"
    usage = estimate_training_usage(total, kind)
    return int(theirs), int(max(usage.values()))


def rows(wanted: tuple[tuple[str, dict[str, Any], Training], ...] = SETTINGS, compare: bool = True) -> Iterator[Row]:
    """Every training, run and forecast."""
    for name, config, training in wanted:
        sizes = dict(config)
        shape = shape_of(sizes)
        if training.eval_batch:
            yield Row(name, evaluated(config, training), sum(part.size for part in evaluating(shape, training)))
            continue
        found = forecast(shape, training)
        yield Row(name, measured(config, training), found.tensors, *(others(config, training) if compare else ()))


def main() -> str:
    """The tables: one process, two ranks, and what others published."""
    from benchmarks.memory_tables import tables

    return tables()


if __name__ == "__main__":
    import sys

    from benchmarks.memory_tables import tables

    print(tables(sys.argv[2] if sys.argv[1:2] == ["--record"] else None))
