"""A shell script's text read into a :class:`Script`. Nothing of it is run; scripts that it names are opened for it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from dsdoctor.jobs.script.launchers import call_of
from dsdoctor.jobs.script.model import Script, Word
from dsdoctor.jobs.script.nested import Following, OpenScript
from dsdoctor.jobs.script.syntax import broken, parse
from dsdoctor.jobs.script.walk import Walker

_SHEBANG_ERREXIT = re.compile(r"#!\s*\S*sh\s+-\w*e")
_OWN_LINE = re.compile(r"#!.*\b(?:ba|da|z|k|a)?sh\b")


def read_script(
    text: str, source: str, open_script: OpenScript | None = None, arguments: Sequence[str] | None = None
) -> Script:
    """What a shell script does, with the scripts that it reads in or starts where `open_script` gives their text.

    `arguments` are its own, `$1` and so on; without them nobody knows what these are.

    Raises:
        FileError: something in it is never closed, or it is no script in any readable size; with the line.
    """
    root, troubles = parse(text, source)
    following = Following(open_script)
    walker = Walker(source, following)
    walker.run(root, bool(_SHEBANG_ERREXIT.match(text)), arguments)
    calls = tuple(call for command in walker.commands if (call := call_of(command)) is not None)
    directives, late = _directives(text)
    return Script(
        source=source,
        text=text,
        commands=tuple(walker.commands),
        calls=calls,
        troubles=troubles,
        directives=directives,
        late_directives=late,
        unread=tuple(dict.fromkeys(node.start_point.row + 1 for node in broken(root))),
        sourced=tuple(walker.sourced),
        notes=tuple(following.notes),
    )


def is_shell(text: str) -> bool:
    """Whether a text says in its first line that a shell reads it."""
    return bool(_OWN_LINE.match(text))


def _directives(text: str) -> tuple[tuple[Word, ...], tuple[Word, ...]]:
    """The words of the #SBATCH lines: those that Slurm reads, and those behind the first command (sbatch(1))."""
    early: list[Word] = []
    late: list[Word] = []
    begun = False
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if line.startswith("#SBATCH"):
            words = re.sub(r"\s#.*", "", line[len("#SBATCH") :]).split()
            (late if begun else early).extend(Word(word, number) for word in words)
        elif stripped and not stripped.startswith("#"):
            begun = True
    return tuple(early), tuple(late)
