"""Opening logs for `diagnose`: standard input, files, folders, compressed files and archives, as streams of bytes.

Nothing is read whole: a source is a name and an iterator of chunks that opens its file when it is begun.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, cast

from dsdoctor.run.unpack import unpacked
from dsdoctor.yamlfile import FileError

STDIN = Path("-")

# In a folder or an archive, what is no log: weights, data, pictures, sources, settings. A file named on the command
# line is read whatever it is called.
_NOT_LOGS = re.compile(
    r"(?i)\.(?:pt|pth|bin|safetensors|ckpt|npz|npy|pkl|pickle|parquet|arrow|h5|onnx|gguf|model|so|o|a|pyc|py|pyx|cu|cpp|h"
    r"|png|jpe?g|gif|svg|pdf|css|js|ts|ya?ml|toml|ini|cfg|tsv|sqlite|db|lock|whl|7z|sh|wandb)$"
    r"|(?:^|/)(?:requirements[^/]*\.txt|vocab\.txt|merges\.txt|spiece\.txt|[^/]*\.tfevents\.[^/]*)$"
)
# What is a log only when its name says so: `error.json` of torchrun, `logs_123.zip`, `downloaded-logs-2026.json`.
_MAYBE = re.compile(r"(?i)\.(?:json|jsonl|ndjson|csv|html?|zip)(?:\.(?:gz|xz|bz2|zst))?$")
_SAYS_SO = re.compile(r"(?i)(?:^|[^a-z])(?:logs?|errors?|stderr|stdout|console)(?![a-z])[^/]*$")
_DIGITS = re.compile(r"(\d+)")
_RANK_FILE = re.compile(r"rank\d+\.log$")


def open_sources(paths: Iterable[str | Path]) -> Iterator[tuple[str, Iterator[bytes]]]:
    """Name and bytes of every log of these paths: files, folders (their logs in order of name), `-` for standard input.

    Each stream must be read before the next is asked for: members of a tar archive come in its order. It raises
    :class:`dsdoctor.logs.source.IncompleteError` where it ends before its time, and at once when it is no text.

    Raises:
        FileError: a path is not there or cannot be read, a folder has no log.
    """
    for file in files_of(paths):
        if file == STDIN:
            yield from _standard_input()
            continue
        try:
            stream = file.open("rb")
        except OSError as error:
            raise FileError(file, f"cannot be read: {error.strerror or error}") from None
        with stream:
            yield from unpacked(str(file), stream, file, may_be_log)


def _standard_input() -> Iterator[tuple[str, Iterator[bytes]]]:
    stream = sys.stdin.buffer
    if not stream.isatty():
        yield from unpacked("stdin", stream, Path("stdin"), may_be_log)
        return
    from dsdoctor.run.paste import Paste

    with Paste(stream) as paste:
        yield from unpacked("stdin", cast("IO[bytes]", paste), Path("stdin"), may_be_log)


def files_of(paths: Iterable[str | Path]) -> list[Path]:
    """The files of these paths, folders replaced by the logs below them; STDIN stands for itself.

    Raises:
        FileError: a path is not there, a folder cannot be read or has no log.
    """
    return [file for path in paths for file in _files(Path(path))]


def may_be_log(name: str) -> bool:
    """Whether a file of a folder or of an archive may be a log, by its name."""
    hidden = any(part.startswith((".", "__MACOSX", "__pycache__")) for part in name.split("/") if part != ".")
    if hidden or _NOT_LOGS.search(name):
        return False
    return not _MAYBE.search(name) or bool(_SAYS_SO.search(name.rsplit("/", 1)[-1]))


def _files(path: Path) -> list[Path]:
    if path == STDIN:
        return [path]
    if not path.exists():
        raise FileError(path, "no such file; wanted a log, a folder of logs, or - for standard input")
    if not path.is_dir():
        return [path]
    found = sorted(_below(path), key=_natural)
    if not found:
        raise FileError(path, "no log in this folder; name the file if it is called otherwise")
    return found


def _below(folder: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise FileError(error.filename or folder, f"cannot be read: {error.strerror or error}")

    seen: set[tuple[int, int]] = set()  # wandb has links to the logs of its latest run
    for parent, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".") and name != "__pycache__"]
        by_rank = any(_RANK_FILE.search(name) for each in folders for name in _names(Path(parent, each)))
        for name in names:
            if not may_be_log(name) or (by_rank and name == "merged.log"):
                continue  # a merged view repeats the files of the ranks beside it
            file = Path(parent, name)
            if not file.is_file():
                continue
            state = file.stat()
            if state.st_size and (state.st_dev, state.st_ino) not in seen:
                seen.add((state.st_dev, state.st_ino))
                yield file


def _names(folder: Path) -> list[str]:
    try:
        return [each.name for each in folder.iterdir()]
    except OSError:
        return []


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sorts rank10 after rank9, and torchrun's `error.json` after the `stderr.log` that it repeats."""
    text = str(path) if path.name != "error.json" else str(path.with_name("~error.json"))
    return [(int(part), "") if part.isdigit() else (-1, part) for part in _DIGITS.split(text)]
