"""The files that a script sends the output of its calls to, whose folders must be there."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence

from dsdoctor.jobs.script.model import Call, Command, Script, Word
from dsdoctor.jobs.unknown import Unknown

_WRITES = frozenset({">", ">>", "&>", "&>>", ">|"})


def logs_of(script: Script, calls: Sequence[Call]) -> list[list[tuple[str, int]]]:
    """For each call the files that its output goes to, with the line; not those whose folder the script makes itself.

    A `tee` belongs to the call before it.
    """
    place = {id(call.command): number for number, call in enumerate(calls)}
    found: list[list[tuple[str, int]]] = [[] for _ in calls]
    made: list[str] = []
    current: int | None = None
    for command in script.commands:
        current = place.get(id(command), current)
        if command.name in ("mkdir", "install"):
            made += [text for word in command.words[1:] if (text := _at(command, word)) is not None]
            continue
        if current is None or (id(command) not in place and command.name != "tee"):
            continue
        for word in _targets(command):
            path = _at(command, word)
            if path is not None and not any(_covers(folder, path) for folder in made):
                found[current].append((path, word.line))
    if calls:
        found[0] += _of_slurm(script)
    return found


def _targets(command: Command) -> Iterator[Word]:
    yield from (one.target for one in command.redirects if one.operator in _WRITES)
    if command.name == "tee":
        yield from (word for word in command.words[1:] if not word.text.startswith("-"))


def _at(command: Command, word: Word) -> str | None:
    """A path from where the script is started; None where it is not known, or is no file's."""
    if not word.known or isinstance(command.cwd, Unknown) or not word.text or word.text.startswith(("/dev/", "-", "~")):
        return None
    return posixpath.normpath(posixpath.join(command.cwd, word.text))


def _covers(folder: str, path: str) -> bool:
    """Whether `mkdir -p folder` makes the folder that a path lies in."""
    parent = posixpath.dirname(path)
    return folder == parent or folder.startswith(f"{parent}/")


def _of_slurm(script: Script) -> Iterator[tuple[str, int]]:
    """#SBATCH --output: Slurm opens it before the script runs, so that no mkdir in it helps."""
    words = script.directives
    for place, word in enumerate(words):
        name, equals, value = word.text.partition("=")
        if name not in ("--output", "--error", "-o", "-e"):
            continue
        text = value if equals else words[place + 1].text if place + 1 < len(words) else ""
        if posixpath.dirname(text) and "%" not in posixpath.dirname(text) and not text.startswith("/dev/"):
            yield posixpath.normpath(text), word.line
