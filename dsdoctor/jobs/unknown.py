"""A value that a file names and does not tell: a positional parameter, what a command prints."""

from __future__ import annotations


class Unknown(str):
    """A value as it is written (`${5}`, `$(hostname)`), with the reason why nobody can tell it without running.

    It is a text, so that what only shows it need not care; what must decide by it asks with `isinstance`.
    """

    __slots__ = ("reason",)
    reason: str

    def __new__(cls, written: str, reason: str) -> Unknown:
        """The text as written, and why its value is not known."""
        made = super().__new__(cls, written)
        made.reason = reason
        return made
