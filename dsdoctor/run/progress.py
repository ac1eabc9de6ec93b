"""How far a head has taken over what its guardians had to say, so that the next head goes on exactly there.

The log files' lengths are kept with the offsets into the spools: what a head logged after it last wrote this down is
cut off again and read once more. So nothing is logged twice, and nothing is lost in between.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec

from dsdoctor.run.directory import RunDirectory
from dsdoctor.run.stage_end import HostEnd
from dsdoctor.yamlfile import FileError

NAME = "progress.json"


class Progress(msgspec.Struct, frozen=True):
    """What a head knew of a stage under way. Offsets and lengths in bytes; `began` is the time of day, in seconds."""

    began: float
    offsets: dict[str, int] = {}
    ends: dict[str, HostEnd] = {}
    first: str | None = None
    lengths: dict[str, int] = {}


def save(run: RunDirectory, folder: str, progress: Progress) -> None:
    """Keep the progress of a stage beside its logs. Raises FileError."""
    run.write_json(f"logs/{folder}/{NAME}", msgspec.to_builtins(progress))


def restore(run: RunDirectory, folder: str, began: float) -> Progress:
    """The progress of a stage, with its logs cut to where they were then; without one, no logs and a new beginning."""
    logs = run.logs(folder)
    found = {str(path.relative_to(logs)): path for path in logs.rglob("*.log")}
    try:
        progress = msgspec.json.decode((logs / NAME).read_bytes(), type=Progress)
        if all(found[name].stat().st_size >= length for name, length in progress.lengths.items()):
            for name, path in found.items():
                _cut(path, progress.lengths.get(name, 0))
            return progress
        began = progress.began
    except (OSError, KeyError, msgspec.DecodeError):
        pass  # a log that lost its end with this machine's power: all of it is in the spools
    for path in found.values():
        _cut(path, 0)
    return Progress(began)


def _cut(path: Path, length: int) -> None:
    try:
        with path.open("r+b") as file:
            file.truncate(length)
    except OSError as error:
        raise FileError(path, f"cannot be written: {error.strerror}") from None
    if length == 0:
        with contextlib.suppress(OSError):
            path.unlink()
