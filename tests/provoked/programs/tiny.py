"""A language model of a few thousand weights and its data, for what befalls transformers, peft and DeepSpeed."""

import torch
from transformers import LlamaConfig, LlamaForCausalLM


def model():
    """The same weights on every rank."""
    torch.manual_seed(0)
    size = {"vocab_size": 64, "hidden_size": 16, "intermediate_size": 32, "max_position_embeddings": 32}
    return LlamaForCausalLM(LlamaConfig(num_hidden_layers=2, num_attention_heads=2, **size))


def examples(count=64):
    """Sentences of eight tokens."""
    return [{"input_ids": torch.arange(8) + step % 8, "labels": torch.arange(8)} for step in range(count)]
