"""What a shell script does, as far as reading it tells: its commands in order, each with words, variables, place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from dsdoctor.jobs.unknown import Unknown

Launcher = Literal["deepspeed", "torchrun", "accelerate", "python", "llamafactory", "srun", "mpirun"]


@dataclass(frozen=True)
class Word:
    """A word of a command after the shell's expansions. `line` and `column` count from 1 and are where it is written.

    `text` is an :class:`Unknown` where a part of it cannot be told. `many` says that it may stand for any number of
    words (`"$@"`, or an unknown variable without quotes).
    """

    text: str
    line: int
    column: int = 1
    many: bool = False
    quoted: bool = False

    @property
    def known(self) -> bool:
        """Whether the whole text is known."""
        return not isinstance(self.text, Unknown)


@dataclass(frozen=True)
class Variable:
    """A variable in force: its value (several words for an array) and the line that set it."""

    name: str
    words: tuple[Word, ...]
    line: int
    exported: bool = False
    array: bool = False

    @property
    def value(self) -> str:
        """The value as text, an Unknown where it cannot be told."""
        unknown = next((word.text for word in self.words if not word.known), None)
        return unknown if unknown is not None else " ".join(word.text for word in self.words)


@dataclass(frozen=True)
class Redirect:
    """`> file` and its like: the operator, and the word behind it."""

    operator: str
    target: Word


@dataclass(frozen=True)
class Command:
    """One simple command, as often as the script runs it where that can be told.

    `checked` says that its failure is looked at: `set -e`, `||`, `&&`, `if`, or `$?` in the next command. `conditional`
    says that it stands in a branch that may not be taken.
    """

    words: tuple[Word, ...]
    variables: Mapping[str, Variable] = field(default_factory=dict)  # exported, and those written before the command
    shell_variables: Mapping[str, Variable] = field(default_factory=dict)  # all, exported or not
    redirects: tuple[Redirect, ...] = ()
    background: bool = False
    checked: bool = False
    conditional: bool = False
    cwd: str = "."  # relative to where the script is started; an Unknown after `cd "$dir"`
    piped: bool = False  # into another command whose exit code counts

    @property
    def line(self) -> int:
        """The line of its first word, from 1."""
        return self.words[0].line

    @property
    def name(self) -> str:
        """Its first word's last part: `/usr/bin/rsync` is `rsync`."""
        return self.words[0].text.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class Call:
    """A command that starts a program: by which launcher, with which options, and the program's own arguments."""

    command: Command
    launcher: Launcher
    options: tuple[Word, ...]  # of the launcher
    program: Word | None  # a path, or a module's name; None where it cannot be told
    module: bool
    arguments: tuple[Word, ...]
    wrappers: tuple[tuple[Word, ...], ...] = ()  # srun or mpirun around it, with their options

    @property
    def line(self) -> int:
        """The line on which it begins."""
        return self.command.line

    @property
    def complete(self) -> bool:
        """Whether all arguments are there to be read; not so with `"$@"` among them."""
        return self.program is not None and not any(word.many for word in self.arguments)

    def option(self, *names: str) -> Word | None:
        """The value of a launcher's option under any of its names, None when it is not given.

        An option that is given without a value has itself as its value.
        """
        found: Word | None = None
        for place, word in enumerate(self.options):
            name, equals, value = word.text.partition("=")
            if name not in names:
                continue
            following = self.options[place + 1] if place + 1 < len(self.options) else word
            if equals:
                text = Unknown(value, word.text.reason) if isinstance(word.text, Unknown) else value
                found = Word(text, word.line, word.column)
            else:
                found = word if following.text.startswith("-") else following
        return found


@dataclass(frozen=True)
class Trouble:
    """A mistake of writing that a reader of the text sees: its kind, its place, the text there."""

    kind: Literal["blank-after-backslash", "comment-in-continuation", "carriage-return"]
    line: int
    column: int
    text: str


@dataclass(frozen=True)
class Script:
    """A shell script: its commands and calls in the order in which they run, and the mistakes in its text."""

    source: str
    text: str
    commands: tuple[Command, ...]
    calls: tuple[Call, ...]
    troubles: tuple[Trouble, ...] = ()
    directives: tuple[Word, ...] = ()  # the words of its #SBATCH lines, in order
    late_directives: tuple[Word, ...] = ()  # those behind the first command, which Slurm does not read
    unread: tuple[int, ...] = ()  # lines that could not be understood; what they start is missing here
    sourced: tuple[Word, ...] = ()  # files that it reads in with `source`, and that were not followed
    notes: tuple[str, ...] = ()  # what of the scripts that it leads to was not followed

    def line_text(self, line: int) -> str:
        """The text of a line, without the blanks around it."""
        lines = self.text.splitlines()
        return lines[line - 1].strip() if 0 < line <= len(lines) else ""
