"""What holds at one place of a script: variables, options of the shell, folder, and who looks at a failure there."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from dsdoctor.jobs.script.model import Variable, Word
from dsdoctor.jobs.unknown import Unknown


@dataclass
class Shell:
    """What all statements of one shell share: its options and its folder. A subshell has a copy."""

    errexit: bool = False
    pipefail: bool = False
    allexport: bool = False
    cwd: str = "."
    sourced: str = ""


@dataclass
class State:
    """The place of one statement. Branches have copies of the variables, so that one does not see the other's."""

    variables: dict[str, Variable] = field(default_factory=dict)
    shared: Shell = field(default_factory=Shell)
    background: bool = False
    checked: bool = False
    conditional: bool = False
    swallowed: bool = False  # in a pipe whose exit code is another command's

    def here(self) -> State:
        """The same place for the next statement: in the foreground, with the same variables."""
        return replace(self, background=False)

    def go_to(self, folder: Word | None) -> None:
        """`cd`: into a known folder, or somewhere unknown."""
        if folder is None or folder.text == "-":
            self.shared.cwd = Unknown("~" if folder is None else "$OLDPWD", "where `cd` leads is not known")
        elif not folder.known:
            self.shared.cwd = folder.text
        elif isinstance(self.shared.cwd, Unknown) and not folder.text.startswith(("/", "~")):
            self.shared.cwd = Unknown(f"{self.shared.cwd}/{folder.text}", self.shared.cwd.reason)
        else:
            self.shared.cwd = posixpath.normpath(posixpath.join(self.shared.cwd, folder.text))

    def set_options(self, words: Sequence[str]) -> None:
        """`set -euo pipefail` and its kin."""
        names = {"errexit": "errexit", "pipefail": "pipefail", "allexport": "allexport"}
        place = 0
        while place < len(words):
            word = words[place]
            if word in ("--", "-") or word[:1] not in ("-", "+"):
                return
            on = word.startswith("-")
            if word[:1] in ("-", "+"):
                for letter in word[1:]:
                    if letter == "e":
                        self.shared.errexit = on
                    elif letter == "a":
                        self.shared.allexport = on
                    elif letter == "o" and place + 1 < len(words):
                        place += 1
                        if words[place] in names:
                            setattr(self.shared, names[words[place]], on)
            place += 1

    def forget(self, names: Sequence[str], reason: str, line: int) -> None:
        """Variables that get a value nobody can tell."""
        for name in names:
            if name.isidentifier():
                self.variables[name] = Variable(name, (Word(Unknown(f"${name}", reason), line),), line)

    def forget_all(self, line: int) -> None:
        """After `eval` nothing is certain."""
        for name, held in self.variables.items():
            unknown = Word(Unknown(f"${name}", f"`eval` in line {line} may have changed it"), held.line)
            self.variables[name] = replace(held, words=(unknown,))


def settled(variables: dict[str, Variable], ends: Sequence[dict[str, Variable]], line: int, word: str) -> None:
    """What is known after branches that ended so: what all of them agree on."""
    for name in {name for end in ends for name in end}:
        held = [end.get(name) for end in ends]
        known = [one for one in held if one is not None]
        if all(one is not None and one.value == known[0].value for one in held):
            variables[name] = known[0]
            continue
        unknown = Word(Unknown(f"${name}", f"it depends on the `{word}` in line {line}"), known[0].line)
        exported = any(one.exported for one in known)
        variables[name] = Variable(name, (unknown,), known[0].line, exported, known[0].array)
