"""Positional parameters, `$1` and the others: those of the script, of a function, of a script that is read in.

They are kept among the variables under the name `@`, so that branches, loops and subshells treat them as they treat
those. Where there is none of that name, nobody knows with what the script is called.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

from dsdoctor.jobs.script.model import Variable, Word
from dsdoctor.jobs.unknown import Unknown

NAME = "@"


def parameters(words: Sequence[Word], line: int) -> Variable:
    """The variable that holds these."""
    return Variable(NAME, tuple(words), line, array=True)


def given(arguments: Sequence[str]) -> dict[str, Variable]:
    """What a script finds that is called with these words. Their line is 0: they stand in none of the script."""
    return {NAME: parameters([Word(word, 0, quoted=True) for word in arguments], 0)}


def all_of(variables: Mapping[str, Variable], line: int, column: int) -> list[Word] | None:
    """The words that `"$@"` stands for at a place; None where that is not known."""
    held = variables.get(NAME)
    if held is None or any(_is_rest(word) for word in held.words):
        return None
    return [word if word.line else replace(word, line=line, column=column) for word in held.words]


def one_of(variables: Mapping[str, Variable], number: int) -> str | None:
    """The parameter of that number, from 1 on, empty where there is none; None where that is not known."""
    held = variables.get(NAME)
    if held is None or any(word.many or _is_rest(word) for word in held.words[:number]):
        return None
    return held.words[number - 1].text if number <= len(held.words) else ""


def count(variables: Mapping[str, Variable]) -> str | None:
    """`$#`; None where it is not known."""
    held = variables.get(NAME)
    if held is None or any(word.many or _is_rest(word) for word in held.words):
        return None
    return str(len(held.words))


def shifted(variables: dict[str, Variable], by: Word | None, line: int) -> None:
    """What `shift` leaves: a shell that has fewer than so many keeps what it has."""
    held = variables.get(NAME)
    if held is None:
        return
    number = 1 if by is None else int(by.text) if by.known and by.text.isdecimal() else None
    if number is None or one_of(variables, number) is None:
        rest = Word(Unknown("$@", f"`shift` in line {line} leaves them, and how many is not known"), line, many=True)
        variables[NAME] = replace(held, words=(rest,))
    elif number <= len(held.words):
        variables[NAME] = replace(held, words=held.words[number:])


@contextmanager
def called_with(variables: dict[str, Variable], words: Sequence[Word], line: int) -> Iterator[None]:
    """For as long as it lasts, these are the parameters: a function, or a file that is read in with arguments."""
    before = variables.get(NAME)
    variables[NAME] = parameters(words, line)
    try:
        yield
    finally:
        variables.pop(NAME, None)
        if before is not None:
            variables[NAME] = before


def set_by(words: Sequence[Word]) -> list[Word] | None:
    """The words that `set` makes the parameters: `set -- a b`, `set a b`; None where it sets options alone."""
    for place, word in enumerate(words):
        if word.text == "--":
            return list(words[place + 1 :])
        if word.text[:1] not in ("-", "+"):
            options = place and words[place - 1].text[-1:] == "o"  # set -o pipefail
            if not options:
                return list(words[place:])
    return None


def _is_rest(word: Word) -> bool:
    return not word.known and word.text == "$@"
