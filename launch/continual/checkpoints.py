"""Checkpoints within a stage: from the newest whole one it goes on to the result it would have had uninterrupted.

A folder of its own below the output folder, on every host. What is written is the whole state, the same for any number
of ranks, so that the same stage can go on with more or fewer of them, and on hosts that have no copy.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from continual import ContinualError
from continual.ranks import Ranks

FOLDER = "checkpoints"
SAVE_STEPS = 500  # as transformers' Trainer has it
STATE, LABEL = "state.pt", "checkpoint.json"
KEPT = 2  # should the newest be damaged, there is another


def fingerprint(settings: Mapping[str, Any]) -> str:
    """Tells two trainings apart whose results differ. The number of ranks does not count."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Checkpoints:
    """Those of one stage. `every` is in steps, 0 for none; other fingerprints than `fits` are left alone."""

    folder: Path  # absolute
    fits: str
    every: int

    def is_due(self, step: int, last: int) -> bool:
        """Whether one is written after a step. Not after the last: the stage's own output follows."""
        return self.every > 0 and step % self.every == 0 and step < last

    def save(self, step: int, state: Mapping[str, Any], ranks: Ranks) -> None:
        """Write one on every host, and take away older ones of this very training. All ranks call it.

        Raises:
            AgreedError: a disk would not take it; on all ranks.
        """
        with ranks.together():
            if ranks.place.local_rank == 0:
                try:
                    self._write(step, state)
                except OSError as error:
                    raise ContinualError(
                        f"--save_steps {self.every}: {self.folder}: cannot be written: {error.strerror or error}"
                    ) from None
        if ranks.place.local_rank == 0:
            for _, old in self._mine()[KEPT:]:
                shutil.rmtree(old, ignore_errors=True)
        if ranks.place.rank == 0:
            print(f"continual: checkpoint of step {step}: {self._named(step)}", flush=True)

    def newest(self, ranks: Ranks) -> tuple[int, Mapping[str, Any]] | None:
        """The newest whole checkpoint that any rank has, on every rank. All ranks call it."""
        found = self._read() if ranks.place.local_rank == 0 else None
        steps = ranks.gather(found[0] if found is not None else 0)
        step = max(steps)
        if not step:
            return None
        state = ranks.of(steps.index(step), found[1] if found is not None else None)
        if ranks.place.rank == 0:
            print(f"continual: resumed after step {step}, from {self._named(step)}", flush=True)
        return step, state

    def remove(self) -> None:
        """Take away those of this very training: the stage is done. A disk that fails leaves them, no harm."""
        for _, folder in self._mine():
            shutil.rmtree(folder, ignore_errors=True)
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _named(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}-{self.fits}"

    def _mine(self) -> list[tuple[int, Path]]:
        """Steps and folders of this very training's, newest first."""
        found = [(int(path.name.split("-")[1]), path) for path in self.folder.glob(f"step-*[0-9]-{self.fits}")]
        return sorted(found, reverse=True)

    def _write(self, step: int, state: Mapping[str, Any]) -> None:
        """Into a hidden folder that gets its name when all of it is on the disk: a killed write never looks whole."""
        import torch

        self.folder.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{self.fits}-", dir=self.folder))
        try:
            torch.save(dict(state), work / STATE)
            label = {"step": step, "fingerprint": self.fits, "sha256": _digest(work / STATE)}
            (work / LABEL).write_text(json.dumps(label) + "\n", encoding="utf-8")
            for path in (work / STATE, work / LABEL, work):
                _sync(path)
            target = self._named(step)
            if target.exists() and self._whole(target) is None:
                shutil.rmtree(target)
            if not target.exists():  # another host of a shared disk may have been faster
                work.rename(target)
            _sync(self.folder)
        except OSError:
            if self._whole(self._named(step)) is None:
                raise  # else the other host's came between, and is the same
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def _read(self) -> tuple[int, Mapping[str, Any]] | None:
        """The newest whole one on this host; a broken one is passed over, and said."""
        self._sweep()
        for step, folder in self._mine():
            state = self._whole(folder)
            if state is not None:
                return step, state
            print(f"continual: {folder} is not whole and is passed over", flush=True)
        return None

    def _sweep(self) -> None:
        """Take away what killed writes of this very training left behind."""
        for left in self.folder.glob(f".{self.fits}-*"):
            shutil.rmtree(left, ignore_errors=True)

    def _whole(self, folder: Path) -> Mapping[str, Any] | None:
        import torch

        try:
            label = json.loads((folder / LABEL).read_text(encoding="utf-8"))
            if label["fingerprint"] != self.fits or label["sha256"] != _digest(folder / STATE):
                return None
            return torch.load(folder / STATE, map_location="cpu", weights_only=True)  # type: ignore[no-any-return]
        except (OSError, ValueError, KeyError, TypeError, RuntimeError):
            return None


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
