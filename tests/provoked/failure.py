"""What a failure is: one YAML file that says how to provoke it and what `diagnose` has to answer."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal

import msgspec

from dsdoctor.yamlfile import convert, parse, read_text

HERE = Path(__file__).parent
FAILURES = HERE / "failures"
RECORDED = HERE / "recorded"

Need = Literal["root", "memory cgroup", "torch without CUDA", "g++", "nft", "pdsh"]
Event = Literal["poweroff", "mute", "freeze"]


class Befalls(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What happens to a host of the little cluster while the command runs."""

    host: str
    what: Event
    after: str  # the text in the output that it waits for


class Failure(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One failure. `run` is a bash script whose output, both streams of it, is the log.

    It begins in a folder with the `files` and those of `programs/`, with the interpreter of the tests first on PATH.
    `everywhere` makes it run on the head of the little cluster, whose hosts node0 and node1 share that folder; else it
    runs in a sandbox.
    """

    what: str  # one sentence: what was done to whom
    cause: str  # the slug that `diagnose` has to answer
    line: str  # a text that the line it points at has
    run: str
    also: tuple[str, ...] = ()  # further right answers, where the log alone cannot tell
    rank: int | None = None  # the rank that it has to name
    host: str | None = None  # the host that it has to name
    needs: tuple[Need, ...] = ()
    files: dict[str, str] = {}
    everywhere: bool = False
    befalls: Befalls | None = None
    shm: str = "512m"  # size of /dev/shm, as mount takes it
    memory: int | None = None  # limit of all processes together, MiB
    limit: float = 100.0  # seconds after which the provocation itself has failed
    name: str = ""  # from the file's name

    @property
    def log(self) -> Path:
        """Where its recorded log is."""
        return RECORDED / f"{self.name}.log"


@cache
def failures() -> dict[str, Failure]:
    """Every failure by name, in order of the names.

    Raises:
        FileError: one that cannot be read, with the file, the key and the line.
    """
    found = {}
    for path in sorted(FAILURES.glob("*.yaml")):
        text = read_text(path)
        failure: Failure = convert(parse(text, path), Failure, path, text)
        found[path.stem] = msgspec.structs.replace(failure, name=path.stem)
    return found
