"""The plain assignments in files that shells read at their start."""

from __future__ import annotations

from .masking import relevant


def parse_shell(text: str) -> tuple[list[tuple[str, str]], list[int]]:
    """The plain assignments of a shell's start file that matter to training; what is computed there is not followed."""
    pairs: dict[str, str] = {}
    for line in text.splitlines():
        if "=" not in line or not begins_with_assignment(line):
            continue
        try:
            words = shell_words(line.replace(";", " ; "))
        except ValueError:
            continue  # a quotation that goes on in the next line
        words = [word for word in words if word not in ("export", "declare", "typeset", "-x", ";")]
        assigned = dict(word.split("=", 1) for word in words if is_assignment(word))
        if any(word not in assigned and word.partition("=")[0] not in assigned for word in words):
            continue  # a command with variables before it sets nothing
        pairs.update((name, value) for name, value in assigned.items() if relevant(name))
    return list(pairs.items()), []


def is_assignment(text: str) -> bool:
    """Whether a text begins with NAME=."""
    name, equals, _ = text.partition("=")
    plain = name.replace("_", "a").isalnum() and name[:1].isascii() and not name[:1].isdigit()
    return bool(equals) and plain


def begins_with_assignment(line: str) -> bool:
    """Whether a line begins with NAME=, perhaps after `export`, `declare -x` or `typeset -x`."""
    line = line.lstrip()
    if is_assignment(line):
        return True
    for command in (("export",), ("declare", "-x"), ("typeset", "-x")):
        parts = line.split(None, len(command))
        if tuple(parts[:-1]) == command:
            return is_assignment(parts[-1])
    return False


def shell_words(line: str) -> list[str]:
    """The words of a line as shlex.split(line, comments=True) has them; importing that costs more than all else here.

    Raises ValueError for a quotation or an escape that does not end.
    """
    words: list[str] = []
    word: str | None = None
    quote, place = "", 0
    while place < len(line):
        letter = line[place]
        place += 1
        if letter == "\\" and quote != "'":
            if place == len(line):
                raise ValueError("no escaped character")
            literal = quote and line[place] not in ("\\", quote)  # in quotation marks it escapes only these
            word = (word or "") + ("\\" if literal else "") + line[place]
            place += 1
        elif quote:
            quote, word = ("", word) if letter == quote else (quote, (word or "") + letter)
        elif letter in "'\"":
            quote, word = letter, word or ""
        elif letter in " \t\r\n":
            words += [word] if word is not None else []
            word = None
        elif letter == "#":
            break
        else:
            word = (word or "") + letter
    if quote:
        raise ValueError("no closing quotation")
    return words + ([word] if word is not None else [])
