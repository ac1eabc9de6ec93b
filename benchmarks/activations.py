"""Measures what a layer keeps for its backward pass, and writes the table that the memory forecast counts with.

    python -m benchmarks.activations > dsdoctor/jobs/forecast/data/activations.yaml

Small models of each architecture run a forward pass on the CPU with hooks on every tensor that autograd saves. Models
of one and of two layers, batches of two and of three samples, give what one more layer keeps for one more sample; over
random sizes that is linear in the sizes, so a least-squares fit gives the bytes exactly (the remaining error is
asserted to be zero). Dropout is off here: its masks have another size on the CPU.
"""

from __future__ import annotations

import random
import sys
from typing import Any

LAYERS = ("h", "q", "kv", "f", "scores", "heads", "one")  # the sizes that a layer's bytes are made of
SQUARE = ("gpt2", "gpt_neox", "bert")  # their q and kv are as wide as h
PRECISIONS, ATTENTIONS = ("pure16", "autocast", "fp32"), ("sdpa", "eager")
SAMPLES = 16


def config(family: str, size: dict[str, int], layers: int, attention: str) -> Any:
    """A transformers config of a family with these sizes and no dropout."""
    from transformers import AutoConfig

    h, heads, f, vocabulary = size["h"], size["heads"], size["f"], size["V"]
    names: dict[str, Any] = {"vocab_size": vocabulary, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1}
    if family == "t5":
        names.update(d_model=h, num_layers=size.get("encoder", layers), num_decoder_layers=size.get("decoder", layers))
        names.update(num_heads=heads, d_kv=size["hd"], d_ff=f, dropout_rate=0, decoder_start_token_id=0)
        names.update(feed_forward_proj="gated-gelu" if size.get("gated") else "relu")
    elif family == "gpt2":
        names.update(n_embd=h, n_layer=layers, n_head=heads, n_inner=f, n_positions=512)
        names.update(resid_pdrop=0, embd_pdrop=0, attn_pdrop=0)
    else:
        names.update(hidden_size=h, num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=f)
        names.update(max_position_embeddings=514)
    if family in ("bert", "roberta"):
        names.update(hidden_dropout_prob=0, attention_probs_dropout_prob=0)
    if family in ("llama", "mistral", "qwen2"):
        names.update(num_key_value_heads=size["kv"], head_dim=size["hd"])
    made = AutoConfig.for_model(family, **names)
    made._attn_implementation = attention
    return made


def model(family: str, size: dict[str, int], layers: int, attention: str, precision: str, frozen: bool) -> Any:
    """A model of that config, in training mode; frozen as LoRA leaves it: only what flows through has gradients."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSeq2SeqLM

    kinds = {"t5": AutoModelForSeq2SeqLM, "bert": AutoModelForMaskedLM, "roberta": AutoModelForMaskedLM}
    made = kinds.get(family, AutoModelForCausalLM).from_config(config(family, size, layers, attention))
    made = made.to(torch.bfloat16 if precision == "pure16" else torch.float32).train()
    if frozen:
        made.requires_grad_(False)
        made.enable_input_require_grads()
    return made


def saved_bytes(made: Any, precision: str, batch: int, length: int, target: int = 0) -> int:
    """The bytes of all storages that autograd keeps in one forward pass, parameters and buffers not counted."""
    import torch

    own = {tensor.untyped_storage().data_ptr() for tensor in (*made.parameters(), *made.buffers())}
    seen: dict[int, int] = {}
    kept = []

    def pack(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = storage.nbytes()
            kept.append(tensor)  # so that no later storage gets its address
        return tensor

    ids = torch.randint(2, made.config.vocab_size, (batch, length))
    labels = torch.randint(2, made.config.vocab_size, (batch, target)) if target else ids
    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "autocast"),
    ):
        made(input_ids=ids, labels=labels)
    return sum(seen.values())


def per_sample(family: str, size: dict[str, int], how: tuple[str, str, bool], layers: Any, lengths: Any) -> int:
    """What one more sample keeps in a model with these layers."""
    precision, attention, frozen = how
    count = layers if isinstance(layers, int) else 1
    sized = size if isinstance(layers, int) else {**size, **layers}
    made = model(family, sized, count, attention, precision, frozen)
    return saved_bytes(made, precision, 3, *lengths) - saved_bytes(made, precision, 2, *lengths)


def random_size(family: str) -> dict[str, int]:
    """Small sizes without common ratios. Heads share keys where the family can, so that their sizes differ."""
    heads, width = random.choice([4, 6, 8]), random.choice([8, 16, 24])
    hidden = heads * width if family in SQUARE else heads * random.choice([10, 14, 20, 26])
    kv = random.choice([n for n in (1, 2, 3) if heads % n == 0 and n < heads])
    ffn, vocabulary = random.choice([40, 72, 104, 136, 200]), random.choice([97, 151, 211, 307])
    return {"h": hidden, "heads": heads, "kv": kv, "hd": width, "f": ffn, "V": vocabulary}


def fitted(rows: list[dict[str, int]], values: list[int]) -> dict[str, int]:
    """The whole numbers of bytes that explain the values. Raises AssertionError where there are none."""
    import numpy

    names = list(rows[0])
    table = numpy.array([[row[name] for name in names] for row in rows], float)
    found = numpy.linalg.lstsq(table, numpy.array(values, float), rcond=None)[0]
    whole = numpy.round(found * 2) / 2
    worst = float(numpy.abs(table @ whole - values).max() / max(1, *values))
    assert worst < 0.002, (found, worst)
    return {
        name: int(value) if value == int(value) else float(value)
        for name, value in zip(names, whole, strict=True)
        if value
    }


def decoder_or_encoder(family: str, how: tuple[str, str, bool]) -> dict[str, dict[str, int]]:
    """The table of a family with one stack of layers."""
    rows, layer, outside, rest = [], [], [], []
    for _ in range(SAMPLES):
        size, s = random_size(family), random.choice([8, 16, 24, 32, 40])
        heads = size["heads"]
        one, two = (per_sample(family, size, how, layers, (s,)) for layers in (1, 2))
        row = {"h": s * size["h"], "f": s * size["f"], "scores": s * s * heads, "heads": s * heads, "one": s}
        if family not in SQUARE:
            row.update(q=s * heads * size["hd"], kv=s * size["kv"] * size["hd"])
        rows.append(row)
        layer.append(two - one)
        outside.append({"h": s * size["h"], "V": s * size["V"]})
        rest.append(2 * one - two - 24 * s)
    return {"layer": fitted(rows, layer), "outside": approximate(outside, rest)}


def approximate(rows: list[dict[str, int]], values: list[int]) -> dict[str, int]:
    """As :func:`fitted`, for what lies outside the layers: a few bytes a token (labels, positions) are left out."""
    import numpy

    names = list(rows[0])
    table = numpy.array([[row[name] for name in names] for row in rows], float)
    found = numpy.linalg.lstsq(table, numpy.array(values, float), rcond=None)[0]
    return {name: round(float(value)) for name, value in zip(names, found, strict=True) if round(float(value))}


def encoder_decoder(family: str, how: tuple[str, str, bool]) -> dict[str, dict[str, int]]:
    """The table of T5: `layer` of the encoder, `decoder` with what it keeps of its own tokens and of the encoder's."""
    rows, layer, mine, theirs, outside, rest = [], [], [], [], [], []
    for _ in range(2 * SAMPLES):
        size = random_size(family)
        s, t = random.choice([8, 16, 24, 32, 40]), random.choice([8, 16, 24, 40])
        heads, q = size["heads"], size["heads"] * size["hd"]
        one = per_sample(family, size, how, {"encoder": 1, "decoder": 1}, (s, t))
        encoder = per_sample(family, size, how, {"encoder": 2, "decoder": 1}, (s, t)) - one
        decoder = per_sample(family, size, how, {"encoder": 1, "decoder": 2}, (s, t)) - one
        row = {"h": s * size["h"], "q": s * q, "f": s * size["f"], "scores": s * s * heads, "heads": s * heads}
        rows.append({**row, "one": s})
        layer.append(encoder)
        row = {"h": t * size["h"], "q": t * q, "f": t * size["f"], "scores": t * t * heads, "heads": t * heads}
        mine.append({**row, "one": t, "cross": s * t * heads, "other_q": s * q, "other_h": s * size["h"]})
        theirs.append(decoder)
        outside.append({"h": (s + t) * size["h"], "V": t * size["V"], "scores": (s * s + t * t) * heads})
        rest.append(one - encoder - decoder)
    made = {"layer": fitted(rows, layer), "decoder": fitted(mine, theirs)}
    return {**made, "outside": approximate(outside, rest)}


def main() -> None:
    """Print the whole table as YAML."""
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    random.seed(7)
    print("# What a layer keeps for its backward pass, in bytes a token for each of: h hidden size, q and kv width of")
    print("# queries and keys, f feed-forward size, scores heads x length, heads, one; cross heads x encoder length.")
    print("# `other_*` counts tokens of the encoder. `outside`: beside the layers, V the vocabulary. No dropout.")
    print(f"# Measured by `python -m benchmarks.activations`: torch {torch.__version__}, ", end="")
    print(f"transformers {transformers.__version__}.")
    for family in sys.argv[1:] or ("llama", "gpt2", "gpt_neox", "bert", "t5"):
        measure = encoder_decoder if family == "t5" else decoder_or_encoder
        print(f"{family}:")
        for precision in PRECISIONS:
            for attention in ATTENTIONS:
                for frozen in (False, True):
                    found = measure(family, (precision, attention, frozen))
                    parts = ", ".join(f"{part}: {_flow(values)}" for part, values in found.items())
                    print(f"  {precision} {attention} {'frozen' if frozen else 'trained'}: {{{parts}}}", flush=True)


def _flow(values: dict[str, int]) -> str:
    return "{" + ", ".join(f"{name}: {value}" for name, value in values.items()) + "}"


if __name__ == "__main__":
    main()
