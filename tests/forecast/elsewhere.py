"""Memory of GPU trainings as others published it. Nothing of the forecast was chosen by these figures.

transformers' documentation measured BERT-large (a classifier, dummy samples of 512 tokens, 16 GB V100) through NVML, in
MiB: docs/source/en/perf_train_gpu_one.md of release 4.27. QwenLM/Qwen's README.md at 03cd81f, "Profiling of Memory and
Speed", measured LoRA, Q-LoRA and full training of its first models on A100s with batch 1, accumulation 8 and Flash
attention 2; its "G" is taken as GiB. Targets, rank and checkpointing are those of its finetune.py and scripts.
"""

from __future__ import annotations

from dataclasses import replace

from dsdoctor.jobs.forecast.shape import ModelShape, shape_of
from dsdoctor.jobs.forecast.training import Lora, Training, Zero

MIB, GIB = 1 << 20, 1 << 30

BERT_LARGE = {"model_type": "bert", "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16}
BERT_LARGE |= {"intermediate_size": 4096, "vocab_size": 30522}


def _qwen(hidden: int, layers: int, heads: int, ffn: int) -> ModelShape:
    """The first Qwen: qwen2 with as many keys as queries, and the query's, key's and value's matrix in one."""
    sizes = {"hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads}
    return shape_of({"model_type": "qwen2", **sizes, "intermediate_size": ffn, "vocab_size": 151936})


QWEN_2B, QWEN_7B, QWEN_14B = _qwen(2048, 24, 16, 5504), _qwen(4096, 32, 32, 11008), _qwen(5120, 40, 40, 13696)
ALL = Lora(64, ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"), 0.05)

BERT = Training(micro_batch=4, length=512, attention="eager")
SMALL = replace(BERT, micro_batch=1, accumulation=4)
SAVING = replace(SMALL, checkpointing=True)
HALF = replace(SAVING, precision="autocast")
ADAPTERS = Training("pure16", foreach=True, lora=ALL, micro_batch=1, accumulation=8, checkpointing=True, autocast=True)
EVERYTHING = Training(
    "mixed", engine="deepspeed", zero=Zero(3, reduce_bucket=None, overlap=True), micro_batch=1, accumulation=8
)
EVERYTHING = replace(EVERYTHING, checkpointing=True, ranks=2)

Seen = tuple[str, ModelShape, Training, float]

BERTS: tuple[Seen, ...] = tuple(
    (f"BERT-large, {name}", shape_of(BERT_LARGE), training, mib * MIB)
    for name, training, mib in (
        ("batch 4, fp32", BERT, 14949),
        ("batch 1 × 4", SMALL, 8681),
        ("batch 1 × 4, checkpointing", SAVING, 6775),
        ("batch 4, fp16", replace(BERT, precision="autocast"), 13939),
        ("batch 1 × 4, checkpointing, fp16", HALF, 7275),
        ("batch 4, Adafactor", replace(BERT, optimizer="adafactor"), 12295),
        (
            "batch 1 × 4, checkpointing, fp16, Adafactor",
            replace(HALF, optimizer="adafactor"),
            4847,
        ),
        ("batch 4, 8-bit Adam", replace(BERT, optimizer="adamw_8bit"), 13085),
        (
            "batch 1 × 4, checkpointing, fp16, 8-bit Adam",
            replace(HALF, optimizer="adamw_8bit"),
            5363,
        ),
    )
)
LENGTHS = (256, 512, 1024, 2048, 4096, 8192)
QWENS: tuple[Seen, ...] = tuple(
    (f"{name}, {length} tokens", shape, replace(training, length=length), each * GIB)
    for name, shape, training, seen in (
        ("Qwen-1.8B, LoRA", QWEN_2B, ADAPTERS, (6.7, 7.4, 8.4, 11.0, 16.2, 21.8)),
        ("Qwen-7B, LoRA", QWEN_7B, ADAPTERS, (20.1, 20.4, 21.5, 23.8, 29.7, 36.6)),
        ("Qwen-14B, LoRA", QWEN_14B, ADAPTERS, (34.6, 35.1, 35.3, 37.4, 42.5, 55.2)),
        ("Qwen-7B, all, ZeRO-3, two cards", QWEN_7B, EVERYTHING, (139.2 / 2, 148.0 / 2, 162.0 / 2)),
    )
    for length, each in zip(LENGTHS, seen, strict=False)
)
