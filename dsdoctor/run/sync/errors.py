"""What goes wrong with a copy, in words for a person."""

from __future__ import annotations


class SyncError(Exception):
    """A host could not be given its files: names the host, what happened there, and the mend."""

    def __init__(self, host: str, message: str) -> None:
        super().__init__(f"{host}: {message}")
        self.host = host
        self.detail = message
