"""config.json of models that everybody knows, by their published figures, and the trainings of the recorded runs."""

from __future__ import annotations

from typing import Any

from dsdoctor.jobs.forecast.shape import ModelShape, shape_of
from dsdoctor.jobs.forecast.training import Lora, Training

CONFIGS: dict[str, dict[str, Any]] = {
    "LLaMA-7B": {"model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32, "intermediate_size": 11008}
    | {"num_attention_heads": 32, "vocab_size": 32000},
    "Llama-3-8B": {"model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32, "intermediate_size": 14336}
    | {"num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256},
    "Mistral-7B": {"model_type": "mistral", "hidden_size": 4096, "num_hidden_layers": 32, "intermediate_size": 14336}
    | {"num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 32000},
    "Qwen2.5-7B": {"model_type": "qwen2", "hidden_size": 3584, "num_hidden_layers": 28, "intermediate_size": 18944}
    | {"num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152064},
    "Qwen2.5-0.5B": {"model_type": "qwen2", "hidden_size": 896, "num_hidden_layers": 24, "intermediate_size": 4864}
    | {"num_attention_heads": 14, "num_key_value_heads": 2, "vocab_size": 151936, "tie_word_embeddings": True},
    "GPT-2": {"model_type": "gpt2", "n_embd": 768, "n_layer": 12, "n_head": 12, "vocab_size": 50257},
    "Pythia-70M": {"model_type": "gpt_neox", "hidden_size": 512, "num_hidden_layers": 6, "num_attention_heads": 8}
    | {"intermediate_size": 2048, "vocab_size": 50304},
    "BERT-base": {"model_type": "bert", "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12}
    | {"intermediate_size": 3072, "vocab_size": 30522},
    "RoBERTa-base": {"model_type": "roberta", "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12}
    | {"intermediate_size": 3072, "vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1},
    "T5-large": {"model_type": "t5", "d_model": 1024, "d_ff": 4096, "d_kv": 64, "num_layers": 24, "num_heads": 16}
    | {"vocab_size": 32128},
    "T5-v1.1-small": {"model_type": "t5", "d_model": 512, "d_ff": 1024, "d_kv": 64, "num_layers": 8, "num_heads": 6}
    | {"vocab_size": 32128, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
}

# As the published checkpoints have them (BERT and RoBERTa with their pooler, as AutoModel builds them).
PARAMETERS = {
    "LLaMA-7B": 6_738_415_616,
    "Llama-3-8B": 8_030_261_248,
    "Mistral-7B": 7_241_732_096,
    "Qwen2.5-7B": 7_615_616_512,
    "Qwen2.5-0.5B": 494_032_768,
    "GPT-2": 124_439_808,
    "Pythia-70M": 70_426_624,
    "BERT-base": 109_482_240,
    "RoBERTa-base": 124_645_632,
    "T5-large": 737_668_096,
    "T5-v1.1-small": 76_961_152,
}

ALL = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")

# The notes' runs: batch 1 × accumulation 8, 90 + 70 + 1 tokens a sample, weights and autocast in bf16, transformers
# 4.46 (its AdamW makes temporaries), on one card or with DDP on two.
FULL = Training("pure16", foreach=True, micro_batch=1, length=161, accumulation=8, checkpointing=True, autocast=True)
ADAPTERS = Training(
    "pure16", foreach=True, micro_batch=1, length=161, accumulation=8, autocast=True, lora=Lora(8, ALL, 0.05)
)
LLAMA3 = Training(
    "pure16",
    foreach=True,
    micro_batch=1,
    length=150,
    accumulation=8,
    autocast=True,
    lora=Lora(8, ("q_proj", "k_proj", "v_proj"), 0.05),
)


def model(name: str) -> ModelShape:
    """The sizes of a model by its name."""
    return shape_of(CONFIGS[name])
