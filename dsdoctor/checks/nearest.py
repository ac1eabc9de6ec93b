"""The known name that a misspelt one was probably meant to be."""

from __future__ import annotations

from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name with the same words in another order, within two slips of the finger, or with one word more."""
    known = sorted(known)
    words = sorted(name.split("_"))
    for candidate in known:
        if sorted(candidate.split("_")) == words:
            return candidate
    # Two slips in a short name make another word of it.
    limit = 2 if len(name) > 10 else 1
    close = [(distance(name, other), other) for other in known if abs(len(other) - len(name)) <= limit]
    if close and min(close)[0] <= limit:
        return min(close)[1]
    longer = [other for other in known if _lacks_one(words, sorted(other.split("_")))]
    return longer[0] if len(longer) == 1 else None


def distance(first: str, second: str) -> int:
    """How many letters must be put in, left out, changed or swapped with their neighbour to get to the other."""
    before: list[int] = []
    last = list(range(len(second) + 1))
    for row, letter in enumerate(first, 1):
        this = [row]
        for column, other in enumerate(second, 1):
            cost = min(last[column] + 1, this[column - 1] + 1, last[column - 1] + (letter != other))
            swapped = row > 1 and column > 1 and letter == second[column - 2] and first[row - 2] == other
            this.append(min(cost, before[column - 2] + 1) if swapped else cost)
        before, last = last, this
    return last[-1]


def _lacks_one(words: list[str], of: list[str]) -> bool:
    if len(of) != len(words) + 1:
        return False
    rest = list(of)
    for word in words:
        if word not in rest:
            return False
        rest.remove(word)
    return True
