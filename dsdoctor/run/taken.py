"""How far a head has taken over what its guardians had to say, so that the next head goes on exactly there.

The log files' lengths are kept with the offsets into the spools: what a head logged after it last wrote this down is
cut off again and read once more. So nothing is logged twice, and nothing is lost in between.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import msgspec

from dsdoctor.run.directory import RunDirectory
from dsdoctor.run.events import Noted, Show
from dsdoctor.run.stage_end import HostEnd
from dsdoctor.yamlfile import FileError

NAME = "taken.json"


class Taken(msgspec.Struct, frozen=True):
    """What a head knew of a stage under way. Offsets and lengths in bytes; `began` is the time of day, in seconds."""

    began: float
    offsets: dict[str, int] = {}
    ends: dict[str, HostEnd] = {}
    first: str | None = None
    lengths: dict[str, int] = {}


class Keeping:
    """Writes down how far a stage was taken over, where there is a `keep`; that it cannot is said once."""

    def __init__(self, keep: Callable[[Taken], None] | None, show: Show) -> None:
        self._keep, self._show, self._failed = keep, show, False

    def __call__(self, taken: Taken) -> None:
        """Keep it."""
        if self._keep is None:
            return
        try:
            self._keep(taken)
        except FileError as error:
            if not self._failed:
                self._failed = True
                text = f"{error}: another head would have to read the hosts' spools again"
                self._show(Noted(text, warning=True))


def save(run: RunDirectory, folder: str, taken: Taken) -> None:
    """Keep how far a stage was taken over beside its logs. Raises FileError."""
    run.write_json(f"logs/{folder}/{NAME}", msgspec.to_builtins(taken))


def restore(run: RunDirectory, folder: str, began: float) -> Taken:
    """How far a stage was taken over; its logs are cut to where they were then. Not knowing it is a new beginning."""
    logs = run.logs(folder)
    found = {str(path.relative_to(logs)): path for path in logs.rglob("*.log")}
    try:
        taken = msgspec.json.decode((logs / NAME).read_bytes(), type=Taken)
        if all(found[name].stat().st_size >= length for name, length in taken.lengths.items()):
            for name, path in found.items():
                _cut(path, taken.lengths.get(name, 0))
            return taken
        began = taken.began
    except (OSError, KeyError, msgspec.DecodeError):
        pass  # a log that lost its end with this machine's power: all of it is in the spools
    for path in found.values():
        _cut(path, 0)
    return Taken(began)


def _cut(path: Path, length: int) -> None:
    try:
        with path.open("r+b") as file:
            file.truncate(length)
    except OSError as error:
        raise FileError(path, f"cannot be written: {error.strerror}") from None
    if length == 0:
        with contextlib.suppress(OSError):
            path.unlink()
