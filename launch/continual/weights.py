"""What is kept of a model's weights, so that no stage works it out again: their sha256, and those out of a GGUF file.

A sha256 is kept in the run's folder and holds as long as the files are untouched; converted weights lie in the cache,
under the sha256 of the file that they come from.
"""

from __future__ import annotations

import copy
import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from continual import ContinualError, assets

if TYPE_CHECKING:
    from continual.models import Base

KEPT = ".weights.json"
LABEL = "converted.json"
SETTLED = 2.0  # seconds: a file changed again within a tick of its clock would look untouched


def digest(paths: Sequence[Path], kept: Path | None = None) -> str:
    """The sha256 of files one after the other; from `kept`, a file of earlier ones, as long as these are untouched.

    Untouched: same path, device, inode, size, times of change. What cannot be written is worked out again next time.

    Raises:
        OSError: one of them cannot be read.
    """
    looks = [path.stat() for path in paths]
    facts = [
        [str(path), look.st_dev, look.st_ino, look.st_size, look.st_mtime_ns, look.st_ctime_ns]
        for path, look in zip(paths, looks, strict=True)
    ]
    key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
    known = _known(kept)
    if key in known:
        return known[key]
    whole = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                whole.update(block)
    if kept is not None and time.time() - max(look.st_ctime for look in looks) > SETTLED:
        _keep(kept, _known(kept) | {key: whole.hexdigest()})
    return whole.hexdigest()


def _known(kept: Path | None) -> dict[str, str]:
    try:
        found = json.loads(kept.read_text(encoding="utf-8")) if kept is not None else {}
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _keep(kept: Path, known: dict[str, str]) -> None:
    from continual.stages import write_json

    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_json(kept, known)
    except OSError:
        return


def as_saved(base: Base) -> Base:
    """A model out of a GGUF file as transformers saves models: converted once, by one process, then in the cache.

    Where the cache takes nothing, the file itself is read each time.

    Raises:
        ContinualError: transformers cannot read the file.
    """
    if base.gguf is None:
        return base
    import transformers

    cache = assets.cache_folder() / "converted"
    folder = cache / f"{base.sha256[:16]}-transformers-{transformers.__version__}"
    if not _whole(folder, base):
        with ExitStack() as stack:
            try:
                stack.enter_context(assets.locked(cache))
            except ContinualError:
                return base
            if not _whole(folder, base):  # another rank may have made it while this one waited
                try:
                    _convert(base, folder)
                except OSError as error:
                    print(f"continual: {folder}: not kept: {error.strerror or error}", flush=True)
                    return base
    return replace(base, path=folder, gguf=None)


def _whole(folder: Path, base: Base) -> bool:
    """Whether all of it lies there, as it was written."""
    try:
        label = json.loads((folder / LABEL).read_text(encoding="utf-8"))
        files = {name: digest([folder / name], folder / KEPT) for name in label["files"]}
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return bool(files) and (label.get("gguf"), label["files"]) == (base.sha256, files)


def _convert(base: Base, folder: Path) -> None:
    """Write it beside its place and move it there in one step."""
    print(f"continual: {base.gguf} is read and kept as safetensors, once: {folder}", flush=True)
    for left in folder.parent.glob(f".{folder.name}-*"):  # of a process that was killed: the lock is ours now
        shutil.rmtree(left, ignore_errors=True)
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        model, tokenizer = _read(base)
        _save(model, work)
        tokenizer.save_pretrained(work)
        for path in work.iterdir():
            path.chmod(0o644)  # the cache may be shared
        files = {path.name: digest([path]) for path in sorted(work.iterdir())}
        label = {"gguf": base.sha256, "files": files}
        (work / LABEL).write_text(json.dumps(label, indent=2) + "\n", encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)  # not whole
        work.chmod(0o755)
        work.rename(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _save(model: Any, folder: Path) -> None:
    """As `save_pretrained` does, which refuses a model that comes out of a GGUF file."""
    from safetensors.torch import save_model

    config = copy.deepcopy(model.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config.architectures = [type(model).__name__]
    config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)
    save_model(model, str(folder / "model.safetensors"), metadata={"format": "pt"})  # tied weights once


def _read(base: Base) -> tuple[Any, Any]:
    """The model in fp32 with all its layers, and its tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    options = {"gguf_file": base.gguf, "local_files_only": True}
    try:
        model = AutoModelForCausalLM.from_pretrained(base.path, torch_dtype=torch.float32, **options)
        return model, AutoTokenizer.from_pretrained(base.path, **options)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        mend = "\n  pip install 'gguf>=0.10'" if isinstance(error, ImportError) else ""
        raise ContinualError(f"--model_name_or_path {base.path}: {error}{mend}") from None
