"""What is kept of a model's weights: sha256s as long as files are untouched, and models out of GGUF files."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from continual import assets, weights
from continual.models import Base

pytestmark = pytest.mark.train


def aged(path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of long ago, for which a sha256 may be kept."""
    path.write_bytes(content)
    monkeypatch.setattr(weights, "SETTLED", -1.0)
    return path


def test_an_untouched_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = aged(tmp_path / "model.safetensors", b"one", monkeypatch)
    kept = tmp_path / "run" / weights.KEPT
    first = weights.digest([file], kept)
    assert first == weights.hashlib.sha256(b"one").hexdigest()
    known = json.loads(kept.read_text())
    kept.write_text(json.dumps(dict.fromkeys(known, "as kept")))
    assert weights.digest([file], kept) == "as kept", "the file is not read again"
    assert weights.digest([file]) == first
    look = file.stat()
    file.write_bytes(b"two")
    os.utime(file, ns=(look.st_atime_ns, look.st_mtime_ns))  # as some copies do: its time of change tells all the same
    assert weights.digest([file], kept) == weights.hashlib.sha256(b"two").hexdigest()


def test_a_file_of_just_now_is_not_trusted(tmp_path: Path):
    file, kept = tmp_path / "model.safetensors", tmp_path / weights.KEPT
    file.write_bytes(b"one")
    weights.digest([file], kept)
    assert not kept.exists()


@pytest.mark.parametrize("broken", ["", "{", "[1]"])
def test_what_is_kept_may_be_broken_or_not_to_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str):
    file = aged(tmp_path / "model.safetensors", b"one", monkeypatch)
    kept = tmp_path / weights.KEPT
    kept.write_text(broken)
    assert weights.digest([file], kept) == weights.digest([file], Path("/dev/null/x")) == weights.digest([file])
    assert len(json.loads(kept.read_text())) == 1


class Gguf:
    """A model in a GGUF file; reading it is counted."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DSDOCTOR_CACHE", str(folder / "cache"))
        self.cache, self.read, self.monkeypatch = folder / "cache" / "converted", 0, monkeypatch
        self.base = Base(folder, None, "abc" * 20, "model.gguf")
        self.after: Any = lambda: None
        monkeypatch.setattr(weights, "_read", self._read)
        monkeypatch.setattr(weights, "_save", lambda model, work: (work / "model.safetensors").write_bytes(model))

    def _read(self, base: Base) -> tuple[bytes, Any]:
        self.read += 1
        self.after()
        return b"weights", self

    def save_pretrained(self, folder: Path) -> None:
        (folder / "tokenizer.json").write_text("{}")


@pytest.fixture
def gguf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Gguf:
    return Gguf(tmp_path, monkeypatch)


def test_a_gguf_file_is_converted_once(gguf: Gguf):
    saved = weights.as_saved(gguf.base)
    assert weights.as_saved(gguf.base) == saved
    assert gguf.read == 1
    assert (saved.gguf, saved.sha256, saved.path.parent) == (None, gguf.base.sha256, gguf.cache)
    assert weights.as_saved(saved) is saved
    assert sorted(path.name for path in saved.path.iterdir() if path.name[0] != ".") == [
        *(weights.LABEL, "model.safetensors", "tokenizer.json")
    ]


@pytest.mark.parametrize("damage", ["cut", "gone", "label", "another's"])
def test_a_damaged_one_is_made_anew(gguf: Gguf, damage: str):
    folder = weights.as_saved(gguf.base).path
    label = folder / weights.LABEL
    if damage == "cut":
        (folder / "model.safetensors").write_bytes(b"weight")
    elif damage == "gone":
        (folder / "tokenizer.json").unlink()
    elif damage == "label":
        label.write_text("{")
    else:
        label.write_text(json.dumps(json.loads(label.read_text()) | {"gguf": "b"}))
    assert weights.as_saved(gguf.base).path == folder
    assert gguf.read == 2
    assert (folder / "model.safetensors").read_bytes() == b"weights"


def test_killed_in_the_middle_it_is_not_there(gguf: Gguf):
    def killed() -> None:
        raise KeyboardInterrupt

    gguf.after = killed
    gguf.monkeypatch.setattr(weights.shutil, "rmtree", lambda *_, **__: None)  # nobody tidies up after SIGKILL
    with pytest.raises(KeyboardInterrupt):
        weights.as_saved(gguf.base)
    gguf.monkeypatch.undo()
    again = Gguf(gguf.base.path, gguf.monkeypatch)
    folder = weights.as_saved(again.base).path
    assert [path for path in again.cache.iterdir() if path.name != ".lock"] == [folder]


def test_two_at_once_convert_once(gguf: Gguf):
    entered, go = threading.Event(), threading.Event()

    def wait() -> None:
        entered.set()
        go.wait(30)

    gguf.after = wait
    found: list[Base] = []
    both = [threading.Thread(target=lambda: found.append(weights.as_saved(gguf.base))) for _ in range(2)]
    both[0].start()
    assert entered.wait(60)
    both[1].start()
    go.set()
    for thread in both:
        thread.join(60)
    assert gguf.read == 1
    assert found[0] == found[1]


def test_a_cache_that_takes_nothing(gguf: Gguf, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DSDOCTOR_CACHE", "/dev/null/cache")
    assert weights.as_saved(gguf.base) == gguf.base
    monkeypatch.setenv("DSDOCTOR_CACHE", str(gguf.cache.parent))

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(weights, "_save", full)
    assert weights.as_saved(gguf.base) == gguf.base
    assert [path.name for path in gguf.cache.iterdir()] == [".lock"]
    assert assets.cache_folder() == gguf.cache.parent


def test_a_saved_model_is_the_one_that_was_read(tmp_path: Path):
    import torch
    import transformers

    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.LlamaConfig(vocab_size=40, **shape, num_key_value_heads=1, tie_word_embeddings=True)
    model = transformers.LlamaForCausalLM(config)
    model.config.quantization_config = {"quant_method": "gguf"}  # as transformers marks one that it has read
    weights._save(model, tmp_path)
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(again) is type(model)
    ours, theirs = again.state_dict(), model.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert again.lm_head.weight is again.model.embed_tokens.weight
