"""A model's folder: config, tokenizer, weights and what is missing of them."""

from __future__ import annotations

import json
import os
import re
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
TOKENIZER = re.compile(
    r"^(tokenizer\.json|tokenizer\.model|spiece\.model|sentencepiece\.bpe\.model|vocab\.(json|txt|bpe)|merges\.txt|"
    r"tokenizer_config\.json|.*\.tiktoken|tekken\.json)$"
)


def model_files(folder: str, until: float) -> dict[str, Any]:
    """A model's folder: its config, its tokenizer, its weights and what is missing of them."""
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
    for name, size in sizes.items():
        if whole and time.monotonic() < until and not whole(os.path.join(folder, name), size):
            cut_off.append(name)
    dtype = config.get("dtype") or config.get("torch_dtype")
    return {
        "model_type": text_of(config.get("model_type")),
        "dtype": text_of(dtype),
        "tokenizer_class": text_of(tokenizer.get("tokenizer_class")),
        "tokenizer_files": [name for name in names if TOKENIZER.match(name)],
        "weights": kind,
        "weights_bytes": sum(sizes.values()),
        "largest_bytes": max(sizes.values()) if sizes else 0,
        "shards": len(wanted),
        "missing": [name for name in wanted if name not in sizes][:SHOWN_ENTRIES],
        "cut_off": cut_off[:SHOWN_ENTRIES],
        "broken": broken,
        "adapter": "adapter_config.json" in names,
    }


def text_of(value: Any) -> str | None:
    """A text, or None for anything else."""
    return value if isinstance(value, str) else None


def json_file(folder: str, name: str, names: list[str], broken: list[str]) -> dict[str, Any]:
    """The object in a JSON file; a file that is there and holds none is noted as broken."""
    if name not in names:
        return {}
    try:
        value = json.loads(read(os.path.join(folder, name), 64 << 20))
    except (OSError, ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        broken.append(name)
        return {}
    return value


def whole_safetensors(path: str, size: int) -> bool:
    """Whether a safetensors file is as long as its header says; true where it cannot be told.

    Eight bytes with the header's length, the header (JSON) with every tensor's data_offsets, the data. Source: the
    format's description in the repository huggingface/safetensors, README.md.
    """
    try:
        with open(path, "rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > min(size, 100 << 20):
                return False
            header = json.loads(file.read(length).decode("utf-8"))
        ends = [value["data_offsets"][1] for name, value in header.items() if name != "__metadata__"]
        return bool(size >= 8 + length + max(ends + [0]))
    except OSError:
        return True  # said elsewhere
    except (struct.error, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        return False


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
