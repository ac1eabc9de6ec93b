"""The log files of a stage, as they are written while it runs."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import IO

from dsdoctor.run.events import LineSeen, Show


class StageLogs:
    """The log files of a stage: one a host and rank, and one merged with `host:rank| ` before every line."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.failed: str | None = None  # why nothing more is written
        self._open: dict[Path, IO[str]] = {}

    def __enter__(self) -> StageLogs:
        self.folder.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._open.values():
            with contextlib.suppress(OSError):
                file.close()

    def write(self, host: str, rank: int | None, text: str) -> None:
        """Add a line to the host's and to the merged log."""
        self._append(self.folder / host / ("agent.log" if rank is None else f"rank{rank}.log"), f"{text}\n")
        self._append(self.folder / "merged.log", f"{host}:{'-' if rank is None else rank}| {text}\n")

    def tell(self, host: str, rank: int | None, text: str, show: Show) -> None:
        """Log and show a line of our own about a host, or about one of its ranks."""
        self.write(host, rank, text)
        show(LineSeen(host, None, text if rank is None else f"rank {rank}: {text}", True))

    def lengths(self) -> dict[str, int]:
        """How long each file is, in bytes, by its path below the folder."""
        found = {}
        with contextlib.suppress(OSError):
            for path in self.folder.rglob("*.log"):
                found[str(path.relative_to(self.folder))] = path.stat().st_size
        return found

    def _append(self, path: Path, text: str) -> None:
        if self.failed is not None:
            return
        try:
            file = self._open.get(path)
            if file is None:
                path.parent.mkdir(parents=True, exist_ok=True)
                file = self._open[path] = path.open("a", encoding="utf-8", errors="backslashreplace", buffering=1)
            file.write(text)
        except OSError as error:  # a full disk here is no reason to end a training there
            self.failed = f"{path} cannot be written ({error.strerror}): the rest of this stage is not logged"
