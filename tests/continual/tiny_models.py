"""Tiny random generative models of the real architectures, saved as transformers saves them, with small tokenizers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

SPECIAL = ["<pad>", "</s>", "<unk>"]
LLAMA = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
GROUPED = {"num_key_value_heads": 2, "bos_token_id": None, "attention_dropout": 0.3, "head_dim": 8}
T5 = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "dropout_rate": 0.3}
# Kind: its class in transformers without the ending, its shape, whether its tokens are bytes joined to pairs.
KINDS: dict[str, tuple[str, dict[str, Any], bool]] = {
    "t5": ("T5", T5, False),
    "flan-t5": ("T5", T5 | {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}, False),
    "llama": ("Llama", LLAMA | GROUPED, False),
    "llama-tied": ("Llama", LLAMA | GROUPED | {"tie_word_embeddings": True}, False),
    "qwen2": ("Qwen2", LLAMA | GROUPED, True),  # transformers takes its own tokenizer for this kind, as for the next
    "gpt2": ("GPT2", {"n_embd": 32, "n_layer": 2, "n_head": 4, "bos_token_id": None, "attn_pdrop": 0.3}, True),
}


def write(kind: str, folder: Path, words: list[str]) -> None:
    """A model of a kind and its tokenizer, with a token a word of these or pairs of bytes learnt from them."""
    import torch
    import transformers

    name, shape, pairs = KINDS[kind]
    tokenizer = _pairs(words) if pairs else _words(words)
    special = {"eos_token": "</s>", "unk_token": "<unk>"} | ({"pad_token": "<pad>"} if name == "T5" else {})
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    torch.manual_seed(0)
    size = {"vocab_size": tokenizer.get_vocab_size() + 64, "eos_token_id": 1, "pad_token_id": 0}
    start = {"decoder_start_token_id": 0} if name == "T5" else {}
    config = getattr(transformers, f"{name}Config")(**size, **shape, **start)
    ending = {"T5": "ForConditionalGeneration", "GPT2": "LMHeadModel"}.get(name, "ForCausalLM")
    getattr(transformers, f"{name}{ending}")(config).save_pretrained(folder)


def _words(words: list[str]) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers

    numbers = {word: place for place, word in enumerate([*SPECIAL, *dict.fromkeys(words)])}
    tokenizer = Tokenizer(models.WordLevel(numbers, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


def _pairs(words: list[str]) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        show_progress=False,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator([" ".join(words)], trainer)
    return tokenizer
