"""Scripts that a script reads in (`source x.sh`) or starts (`bash x.sh`): which they are, and where their lines go.

They are followed where they are here, and never run. What is found in one is said at the line of the script in hand
that reads it in or starts it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from dsdoctor.jobs.script.model import Command, Redirect, Variable, Word

# A script by its name as another one has it: its text, and how to call it; None where it is not here. The second says
# that the name counts from the folder of the script itself. It raises FileError for one that cannot be read.
OpenScript = Callable[[str, bool], "tuple[str, str] | None"]

DEEPEST = 8  # scripts in scripts
MOST = 50  # files of one script in all

_SHELLS = frozenset({"bash", "sh", "zsh", "ksh", "dash"})
_OWN_FOLDER = re.compile(r"\$\(.*\bdirname\b.*(?:\$0|\$\{0\}|BASH_SOURCE).*\)/(?P<rest>[^$`()]+)", re.DOTALL)


@dataclass
class Following:
    """What all scripts of one reading share: how files are opened, how many were, and what is to be said of them."""

    open_script: OpenScript | None = None
    notes: list[str] = field(default_factory=list)
    opened: int = 0
    stack: tuple[str, ...] = ()

    def text_of(self, word: Word, here: str) -> tuple[str, str] | None:
        """The text of the script that a word names, and how to call it; None where it is not followed."""
        name, beside = _name(word)
        if self.open_script is None or name is None:
            return None
        if len(self.stack) >= DEEPEST or self.opened >= MOST:
            self._say(f"{here}: {word.text} of line {word.line} was not followed: too many scripts read each other")
            return None
        found = self.open_script(name, beside)
        if found is not None and found[1] in self.stack:
            self._say(f"{here}: line {word.line} starts {found[1]} again, which was not followed a second time")
            return None
        self.opened += found is not None
        return found

    def _say(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)


def _name(word: Word) -> tuple[str | None, bool]:
    """A script's path, and whether it counts from the script's own folder: `$(dirname "$0")/env.sh`."""
    if word.known:
        return word.text, False
    found = _OWN_FOLDER.fullmatch(word.text.strip('"'))
    return (found["rest"], True) if found else (None, False)


def started(words: Sequence[Word]) -> tuple[Word, tuple[Word, ...], bool] | None:
    """The script that a command starts, its arguments, and whether the shell is told to stop at a failure; else None.

    `bash -x x.sh 1`, `./x.sh 1`.
    """
    if not words:
        return None
    first = words[0].text
    if "/" in first and first.endswith((".sh", ".bash")):
        return words[0], tuple(words[1:]), False
    if first.rpartition("/")[2] not in _SHELLS:
        return None
    errexit, place = False, 1
    while place < len(words) and words[place].text[:1] in ("-", "+"):
        option = words[place].text
        if not option.startswith("--"):
            if "c" in option or "s" in option:
                return None
            errexit = errexit or (option[0] == "-" and "e" in option)
            place += option.endswith("o")  # -o pipefail
        place += 1
    if place >= len(words) or words[place].many:
        return None
    return words[place], tuple(words[place + 1 :]), errexit


def inherited(variables: Mapping[str, Variable]) -> dict[str, Variable]:
    """What a script that is started finds of the variables."""
    return {name: one for name, one in variables.items() if one.exported}


def moved(command: Command, line: int, outer: Mapping[str, Variable]) -> Command:
    """A command of another file, at the line that leads there. Variables of `outer` stay where they were set."""
    return replace(
        command,
        words=tuple(_word(word, line) for word in command.words),
        variables=moved_variables(command.variables, line, outer),
        shell_variables=moved_variables(command.shell_variables, line, outer),
        redirects=tuple(Redirect(one.operator, _word(one.target, line)) for one in command.redirects),
    )


def moved_variables(found: Mapping[str, Variable], line: int, outer: Mapping[str, Variable]) -> dict[str, Variable]:
    """Variables that another file has set, at the line that leads there."""
    return {
        name: one
        if outer.get(name) is one
        else replace(one, line=line, words=tuple(_word(word, line) for word in one.words))
        for name, one in found.items()
    }


def _word(word: Word, line: int) -> Word:
    return replace(word, line=line, column=1)
