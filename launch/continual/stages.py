"""The folder that a stage leaves: adapters, figures, and stage.json, written last, by which it counts as complete."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from continual import ContinualError

STATE = "stage.json"
ADAPTERS = "adapter"


@dataclass(frozen=True)
class State:
    """What the next stage must know of a finished one, and must find equal to its own settings."""

    token: str  # drawn anew for each carrying-out of a stage: tells the copies of one from an older one's
    order: str
    method: str
    seed: int
    tasks: list[str]  # trained so far, this stage's last
    base: dict[str, Any]
    lora: dict[str, Any]
    data: dict[str, str]  # task: fingerprint of its held-out examples
    matrix: list[list[float]]
    untrained: list[float | None] = field(default_factory=list)  # of every task by the bare model, where measured
    ahead: list[float | None] = field(default_factory=list)  # of every task just before it was learnt, where measured
    seconds: list[dict[str, float]] = field(default_factory=list)  # of each stage's parts, on rank 0
    files: dict[str, str] = field(default_factory=dict)  # adapter file: sha256


def write_text(path: Path, text: str) -> None:
    """Replace a file in one step: whoever reads it sees the old text or the new one."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file in one step."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def write(folder: Path, state: State, save_adapters: Callable[[Path], None], texts: Mapping[str, str]) -> None:
    """Write a stage's folder: adapters (by `save_adapters`, into a folder it is given), then `texts`, then stage.json.

    Interrupted before the adapters are whole, the folder is as it was; between them and stage.json it counts as
    incomplete, since their hashes are not the recorded ones.

    Raises:
        ContinualError: the disk would not take it, or save_adapters found something wrong.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{ADAPTERS}-", dir=folder))
        try:
            save_adapters(work / ADAPTERS)
            files = _hashes(work / ADAPTERS)
            _swap(work / ADAPTERS, folder / ADAPTERS, work / "replaced")
        finally:
            shutil.rmtree(work, ignore_errors=True)
        for name, text in texts.items():
            write_text(folder / name, text)
        write_json(folder / STATE, asdict(state) | {"files": files})
    except OSError as error:
        raise ContinualError(f"--output_dir {folder}: cannot be written: {error}") from None


def _swap(new: Path, target: Path, aside: Path) -> None:
    """Put a folder in another's place; the old one comes back when that fails."""
    if target.exists():
        target.rename(aside)
    try:
        new.rename(target)
    except BaseException:
        if aside.exists():
            aside.rename(target)
        raise


def _hashes(adapters: Path) -> dict[str, str]:
    return {
        str(path.relative_to(adapters)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(adapters.glob("*/*"))
    }


def read(folder: Path) -> State:
    """What a complete stage left.

    Raises:
        ContinualError: the folder or stage.json is not there, is not readable, or other adapters lie beside it.
    """
    hint = "\n  run that stage again, or start at stage 1"
    if not folder.is_dir():
        raise ContinualError(f"--previous_output_dir {folder}: no such folder on this host{hint}")
    try:
        state = State(**json.loads((folder / STATE).read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise ContinualError(f"--previous_output_dir {folder}: incomplete: {STATE} is not there{hint}") from None
    except (OSError, ValueError, TypeError) as error:
        raise ContinualError(f"--previous_output_dir {folder}: {STATE} cannot be read: {error}{hint}") from None
    for name, wanted in state.files.items():
        path = folder / ADAPTERS / name
        with contextlib.suppress(OSError):
            if hashlib.sha256(path.read_bytes()).hexdigest() == wanted:
                continue
        raise ContinualError(f"--previous_output_dir {folder}: incomplete: {path} is not the file that was saved{hint}")
    return state


def holds(folder: Path, token: str) -> bool:
    """Whether the folder holds the complete result of this very carrying-out (a disk shared with the writer's host)."""
    try:
        return read(folder).token == token
    except ContinualError:
        return False


def check_follows(folder: Path, state: State, settings: Mapping[str, Any]) -> None:
    """Hold that a finished stage is the one before this: same order, method, seed, base, LoRA settings, data.

    `settings` are this stage's, under the names of State.

    Raises:
        ContinualError: the first one that differs, with both values.
    """
    for name, wanted in settings.items():
        seen = getattr(state, name)
        if seen != wanted:
            raise ContinualError(
                f"--previous_output_dir {folder}: {name} was {_short(seen)}, this stage has {_short(wanted)}\n"
                "  give the same settings in all stages, or start again at stage 1"
            )


def _short(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
