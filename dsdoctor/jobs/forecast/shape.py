"""A model's sizes out of its config.json: parameters by formula for each architecture, and what LoRA is put on.

The formulas follow transformers' modeling files; tests compare them with the models that transformers builds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


class UnknownModelError(ValueError):
    """A config.json whose architecture is not known, or that lacks a size."""


@dataclass(frozen=True)
class Linear:
    """A kind of weight matrix, named as LoRA's targets are, and how many of them there are."""

    name: str
    inputs: int
    outputs: int
    count: int
    reads: str  # what its input is: modules with the same word share it


@dataclass(frozen=True)
class ModelShape:
    """A model's sizes. Numbers of parameters are exact for the architecture as transformers builds it."""

    family: str  # llama (with mistral, qwen2, qwen3), gpt2, gpt_neox, bert (with roberta), t5
    model_type: str
    hidden: int
    layers: int  # of the encoder where there is one
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocabulary: int
    parameters: int
    embeddings: int  # of these, tables that are only looked up in
    layer: int  # parameters of a layer, of the decoder where there is one
    tied: int = 0  # numbers in a table that is looked up in and that ends the model, too; 0: there is none
    decoder_layers: int = 0
    dropout: float = 0.0  # of hidden states
    attention_dropout: float = 0.0
    linears: tuple[Linear, ...] = field(default=())
    outside: int = 0  # parameters in no layer

    @property
    def q(self) -> int:
        """The width of all queries together."""
        return self.heads * self.head_dim

    @property
    def kv(self) -> int:
        """The width of all keys together."""
        return self.kv_heads * self.head_dim

    @property
    def generates(self) -> bool:
        """Whether it ends in the vocabulary: a loss over all words a token."""
        return self.family != "bert"


# What each model type is counted as.
FAMILIES = {
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3"), "llama"),
    **dict.fromkeys(("bert", "roberta", "xlm-roberta"), "bert"),
    **{name: name for name in ("gpt2", "gpt_neox", "t5")},
    "mt5": "t5",
}


def shape_of(config: Mapping[str, Any]) -> ModelShape:
    """The sizes of the model that a config.json describes.

    Raises:
        UnknownModelError: an architecture that no formula is here for, or a size that is missing or not a number.
    """
    kind = config.get("model_type")
    family = FAMILIES.get(str(kind))
    if family is None:
        known = ", ".join(FAMILIES)
        raise UnknownModelError(f"the architecture {kind or '(none)'} is not known to the forecast (known: {known})")
    return _BUILD[family](str(kind), config)


def _size(config: Mapping[str, Any], *names: str, default: int | None = None) -> int:
    for name in names:
        value = config.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 40:
            return value
    if default is None:
        raise UnknownModelError(f"config.json has no {names[0]}")
    return default


def _rate(config: Mapping[str, Any], *names: str, default: float) -> float:
    value = next((config[name] for name in names if isinstance(config.get(name), (int, float))), default)
    return float(value)


def _llama(kind: str, config: Mapping[str, Any]) -> ModelShape:
    h, layers, f = (_size(config, name) for name in ("hidden_size", "num_hidden_layers", "intermediate_size"))
    heads, vocabulary = _size(config, "num_attention_heads"), _size(config, "vocab_size")
    kv_heads = _size(config, "num_key_value_heads", default=8 if kind == "mistral" else heads)
    head_dim = _size(config, "head_dim", default=128 if kind == "qwen3" else h // heads)
    q, kv = heads * head_dim, kv_heads * head_dim
    biases = 0
    if kind == "qwen2" or config.get("attention_bias"):
        biases += q + 2 * kv + (0 if kind == "qwen2" else h)
    if config.get("mlp_bias"):
        biases += 2 * f + h
    norms = 2 * h + (2 * head_dim if kind == "qwen3" else 0)
    layer = 2 * h * q + 2 * h * kv + 3 * h * f + biases + norms
    table = vocabulary * h
    tables = table if config.get("tie_word_embeddings") else 2 * table
    return ModelShape(
        family="llama",
        model_type=kind,
        hidden=h,
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        ffn=f,
        vocabulary=vocabulary,
        parameters=tables + layers * layer + h,
        embeddings=0 if config.get("tie_word_embeddings") else table,
        layer=layer,
        outside=tables + h,
        tied=table if config.get("tie_word_embeddings") else 0,
        attention_dropout=_rate(config, "attention_dropout", default=0.0),
        linears=(
            Linear("q_proj", h, q, layers, "attention"),
            Linear("k_proj", h, kv, layers, "attention"),
            Linear("v_proj", h, kv, layers, "attention"),
            Linear("o_proj", q, h, layers, "attended"),
            Linear("gate_proj", h, f, layers, "mlp"),
            Linear("up_proj", h, f, layers, "mlp"),
            Linear("down_proj", f, h, layers, "wide"),
        ),
    )


def _gpt2(kind: str, config: Mapping[str, Any]) -> ModelShape:
    h, layers, heads = (_size(config, name) for name in ("n_embd", "n_layer", "n_head"))
    f, vocabulary = _size(config, "n_inner", default=4 * h), _size(config, "vocab_size")
    layer = 4 * h * h + 4 * h + 2 * h * f + f + h + 4 * h
    tables = (vocabulary + _size(config, "n_positions", "n_ctx", default=1024)) * h
    return ModelShape(
        family="gpt2",
        model_type=kind,
        hidden=h,
        layers=layers,
        heads=heads,
        kv_heads=heads,
        head_dim=h // heads,
        ffn=f,
        vocabulary=vocabulary,
        parameters=tables + layers * layer + 2 * h,
        embeddings=tables - vocabulary * h,  # the vocabulary's table is the last matrix, too
        layer=layer,
        outside=tables + 2 * h,
        tied=vocabulary * h,
        dropout=_rate(config, "resid_pdrop", default=0.1),
        attention_dropout=_rate(config, "attn_pdrop", default=0.1),
        linears=(
            Linear("c_attn", h, 3 * h, layers, "attention"),
            Linear("c_proj", h, h, layers, "attended"),  # of the attention; the MLP's has the same name
            Linear("c_fc", h, f, layers, "mlp"),
            Linear("c_proj", f, h, layers, "wide"),
        ),
    )


def _gpt_neox(kind: str, config: Mapping[str, Any]) -> ModelShape:
    h, layers, heads = (_size(config, name) for name in ("hidden_size", "num_hidden_layers", "num_attention_heads"))
    f, vocabulary = _size(config, "intermediate_size"), _size(config, "vocab_size")
    layer = 4 * h * h + 4 * h + 2 * h * f + f + h + 4 * h
    tables = vocabulary * h * (1 if config.get("tie_word_embeddings") else 2)
    return ModelShape(
        family="gpt_neox",
        model_type=kind,
        hidden=h,
        layers=layers,
        heads=heads,
        kv_heads=heads,
        head_dim=h // heads,
        ffn=f,
        vocabulary=vocabulary,
        parameters=tables + layers * layer + 2 * h,
        embeddings=vocabulary * h,
        layer=layer,
        outside=tables + 2 * h,
        dropout=_rate(config, "hidden_dropout", default=0.0),
        attention_dropout=_rate(config, "attention_dropout", default=0.0),
        linears=(
            Linear("query_key_value", h, 3 * h, layers, "attention"),
            Linear("dense", h, h, layers, "attended"),
            Linear("dense_h_to_4h", h, f, layers, "mlp"),
            Linear("dense_4h_to_h", f, h, layers, "wide"),
        ),
    )


def _bert(kind: str, config: Mapping[str, Any]) -> ModelShape:
    h, layers, heads = (_size(config, name) for name in ("hidden_size", "num_hidden_layers", "num_attention_heads"))
    f, vocabulary = _size(config, "intermediate_size"), _size(config, "vocab_size")
    layer = 4 * (h * h + h) + 2 * h * f + f + h + 4 * h
    positions = _size(config, "max_position_embeddings", default=512)
    tables = (vocabulary + positions + _size(config, "type_vocab_size", default=2)) * h
    return ModelShape(
        family="bert",
        model_type=kind,
        hidden=h,
        layers=layers,
        heads=heads,
        kv_heads=heads,
        head_dim=h // heads,
        ffn=f,
        vocabulary=vocabulary,
        parameters=tables + 2 * h + layers * layer + h * h + h,  # with the pooler, as AutoModel builds it
        embeddings=tables,
        layer=layer,
        outside=tables + 2 * h + h * h + h,
        tied=vocabulary * h,  # of a head that guesses masked words
        dropout=_rate(config, "hidden_dropout_prob", default=0.1),
        attention_dropout=_rate(config, "attention_probs_dropout_prob", default=0.1),
        linears=(
            Linear("query", h, h, layers, "attention"),
            Linear("key", h, h, layers, "attention"),
            Linear("value", h, h, layers, "attention"),
            Linear("dense", h, h, layers, "attended"),
        ),
    )


def _t5(kind: str, config: Mapping[str, Any]) -> ModelShape:
    h, f, width = (_size(config, name) for name in ("d_model", "d_ff", "d_kv"))
    layers, heads, vocabulary = (_size(config, name) for name in ("num_layers", "num_heads", "vocab_size"))
    decoder = _size(config, "num_decoder_layers", default=layers)
    q = heads * width
    gated = str(config.get("feed_forward_proj", "relu")).startswith("gated") or kind == "mt5"
    mlp = (3 if gated else 2) * h * f
    encoder_layer, decoder_layer = 4 * h * q + mlp + 2 * h, 8 * h * q + mlp + 3 * h
    tied = config.get("tie_word_embeddings", kind != "mt5")
    tables = vocabulary * h * (1 if tied else 2)
    buckets = 2 * _size(config, "relative_attention_num_buckets", default=32) * heads
    attentions = layers + 2 * decoder
    return ModelShape(
        family="t5",
        model_type=kind,
        hidden=h,
        layers=layers,
        heads=heads,
        kv_heads=heads,
        head_dim=width,
        ffn=f,
        vocabulary=vocabulary,
        parameters=tables + layers * encoder_layer + decoder * decoder_layer + buckets + 2 * h,
        embeddings=0 if tied else vocabulary * h,
        tied=vocabulary * h if tied else 0,
        layer=decoder_layer,
        outside=tables + buckets + 2 * h,
        decoder_layers=decoder,
        dropout=_rate(config, "dropout_rate", default=0.1),
        attention_dropout=_rate(config, "dropout_rate", default=0.1),
        linears=(
            Linear("q", h, q, attentions, "attention"),
            Linear("k", h, q, attentions, "attention"),
            Linear("v", h, q, attentions, "attention"),
            Linear("o", q, h, attentions, "attended"),
            Linear("wi", h, f, (layers + decoder) * (2 if gated else 1), "mlp"),
            Linear("wo", f, h, layers + decoder, "wide"),
        ),
    )


_BUILD = {"llama": _llama, "gpt2": _gpt2, "gpt_neox": _gpt_neox, "bert": _bert, "t5": _t5}
