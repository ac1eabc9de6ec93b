"""A model's folder: config, tokenizer, weights and what is missing of them."""

from __future__ import annotations

import os
import stat
import struct
import time

from .files import entries, read
from .walk import SHOWN_ENTRIES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# In the order in which transformers looks for them (modeling_utils.py, from_pretrained).
WEIGHTS = (
    ("safetensors", "model.safetensors"),
    ("safetensors", "model.safetensors.index.json"),
    ("bin", "pytorch_model.bin"),
    ("bin", "pytorch_model.bin.index.json"),
    ("safetensors", "adapter_model.safetensors"),
    ("bin", "adapter_model.bin"),
)
TOKENIZER = (
    r"^(tokenizer\.json|tokenizer\.model|spiece\.model|sentencepiece\.bpe\.model|vocab\.(json|txt|bpe)|merges\.txt|"
    r"tokenizer_config\.json|.*\.tiktoken|tekken\.json)$"
)


# What a forecast of memory and time reads of config.json. Names and paths are not among it.
SIZES = (
    *("hidden_size", "num_hidden_layers", "intermediate_size", "num_attention_heads", "num_key_value_heads"),
    *("head_dim", "vocab_size", "max_position_embeddings", "type_vocab_size", "tie_word_embeddings"),
    *("n_embd", "n_layer", "n_head", "n_inner", "n_positions", "n_ctx", "attention_bias", "mlp_bias"),
    *("d_model", "d_ff", "d_kv", "num_layers", "num_decoder_layers", "num_heads", "feed_forward_proj"),
    *("relative_attention_num_buckets", "dropout_rate", "hidden_dropout", "hidden_dropout_prob"),
    *("attention_dropout", "attention_probs_dropout_prob", "resid_pdrop", "attn_pdrop", "sliding_window"),
)


def sizes_of(config: dict[str, Any]) -> dict[str, Any]:
    """The sizes in a config.json: numbers, true and false, short words."""
    found = {}
    for name in SIZES:
        value = config.get(name)
        if isinstance(value, (bool, int, float)) or (isinstance(value, str) and len(value) < 40):
            found[name] = value
    return found


def model_files(folder: str, until: float) -> dict[str, Any]:
    """A model's folder: its config, its tokenizer, its weights and what is missing of them."""
    import re

    names = entries(folder)
    broken: list[str] = []
    config = json_file(folder, "config.json", names, broken)
    tokenizer = json_file(folder, "tokenizer_config.json", names, broken)
    kind, first = next(((kind, name) for kind, name in WEIGHTS if name in names), ("", ""))
    wanted = [first] if first else []
    if first.endswith(".index.json"):
        shards = json_file(folder, first, names, broken).get("weight_map")
        values = shards.values() if isinstance(shards, dict) else []
        wanted = sorted({value for value in values if isinstance(value, str)})
    elif not first:
        wanted = [name for name in names if name.endswith(".gguf")]
        kind = "gguf" if wanted else ""
    sizes: dict[str, int] = {}
    for name in wanted:
        try:
            status = os.stat(os.path.join(folder, name))
        except (OSError, ValueError):
            continue
        if stat.S_ISREG(status.st_mode):
            sizes[name] = status.st_size
    whole = {"safetensors": whole_safetensors, "bin": whole_archive}.get(kind)
    cut_off = []
    parameters: int | None = 0 if kind == "safetensors" and wanted and len(sizes) == len(wanted) else None
    for name, size in sizes.items():
        if whole and time.monotonic() < until and not whole(os.path.join(folder, name), size):
            cut_off.append(name)
        if parameters is not None:
            counted = counted_safetensors(os.path.join(folder, name), size) if time.monotonic() < until else None
            parameters = None if counted is None else parameters + counted
    dtype = config.get("dtype") or config.get("torch_dtype")
    return {
        "model_type": text_of(config.get("model_type")),
        "dtype": text_of(dtype),
        "tokenizer_class": text_of(tokenizer.get("tokenizer_class")),
        "tokenizer_files": [name for name in names if re.match(TOKENIZER, name)],
        "weights": kind,
        "weights_bytes": sum(sizes.values()),
        "largest_bytes": max(sizes.values()) if sizes else 0,
        "shards": len(wanted),
        "missing": [name for name in wanted if name not in sizes][:SHOWN_ENTRIES],
        "cut_off": cut_off[:SHOWN_ENTRIES],
        "broken": broken,
        "adapter": "adapter_config.json" in names,
        "sizes": sizes_of(config),
        "parameters": parameters,
    }


def text_of(value: Any) -> str | None:
    """A text, or None for anything else."""
    return value if isinstance(value, str) else None


def json_file(folder: str, name: str, names: list[str], broken: list[str]) -> dict[str, Any]:
    """The object in a JSON file; a file that is there and holds none is noted as broken."""
    if name not in names:
        return {}
    import json

    try:
        value = json.loads(read(os.path.join(folder, name), 64 << 20))
    except (OSError, ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        broken.append(name)
        return {}
    return value


def safetensors_header(path: str, size: int) -> tuple[int, dict[str, Any]] | None:
    """A safetensors file's header: how long it is, and what it says of each tensor. None for one that is too long.

    Eight bytes with the header's length, the header (JSON) with every tensor's data_offsets, the data. Source: the
    format's description in the repository huggingface/safetensors, README.md. Raises OSError, and ValueError or its
    like for what is no header.
    """
    import json

    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > min(size, 100 << 20):
            return None
        header = json.loads(file.read(length).decode("utf-8"))
    return length, {name: value for name, value in header.items() if name != "__metadata__"}


BROKEN = (struct.error, ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError)


def whole_safetensors(path: str, size: int) -> bool:
    """Whether a safetensors file is as long as its header says; true where it cannot be told."""
    try:
        found = safetensors_header(path, size)
        if found is None:
            return False
        ends = [value["data_offsets"][1] for value in found[1].values()]
        return bool(size >= 8 + found[0] + max(ends + [0]))
    except OSError:
        return True  # said elsewhere
    except BROKEN:
        return False


def counted_safetensors(path: str, size: int) -> int | None:
    """How many numbers the tensors in a safetensors file have, None where that cannot be told."""
    try:
        found = safetensors_header(path, size)
        if found is None:
            return None
        total = 0
        for value in found[1].values():
            numbers = 1
            for extent in value["shape"]:
                numbers *= int(extent)
            total += numbers
        return total if 0 <= total < 1 << 50 else None
    except (OSError,) + BROKEN:
        return None


def whole_archive(path: str, size: int) -> bool:
    """Whether a file that begins as a zip archive, as torch.save writes since 1.6, also ends as one."""
    try:
        with open(path, "rb") as file:
            if file.read(4) != b"PK\x03\x04":
                return size > 0  # the older format has no end that could be told
            file.seek(max(0, size - (64 << 10)))
            return b"PK\x05\x06" in file.read()
    except OSError:
        return True  # said elsewhere
