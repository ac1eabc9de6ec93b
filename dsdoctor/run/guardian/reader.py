"""Reading what programs print: whole lines with their rank, and the present state of a bar that draws itself anew."""

import re
import time
from typing import Any, Callable, Dict, Optional

LINE_LIMIT = 64 * 1024  # a longer line is cut into pieces: constant memory on both ends
BAR_SECONDS = 2.0  # a progress bar never ends its line; its state is told so often
BAR_LIMIT = 500  # bytes of it
# Our template; without it torchrun names the local rank.
RANK = re.compile(r"^@rank(\d{1,9})@ ?|^\[default(\d{1,9})\]:")
FRAGMENT = re.compile(r"@rank(\d{1,9})@ ?")


class Reader:
    """Turns one stream into frames: `line` for every line, `bar` for the state of an unfinished one.

    `stream` is read by its `read1`. With `rank` all of it is that rank's; else lines say theirs by a prefix.
    """

    def __init__(
        self,
        stream: Any,
        name: str,
        first_rank: int,
        send: Callable[[Dict[str, Any]], None],
        rank: Optional[int] = None,
    ) -> None:
        self.stream = stream
        self.only = rank
        self.name = name  # o or e
        self.first_rank = first_rank
        self.send = send
        self._rank = rank
        self._whole = True  # whether the last piece ended its line

    def run(self) -> None:
        """Read to the end of the stream."""
        rest, shown = b"", 0.0
        for chunk in iter(lambda: self.stream.read1(LINE_LIMIT), b""):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self._line(line + b"\n")
            while len(rest) >= LINE_LIMIT:
                self._piece(rest[:LINE_LIMIT])
                rest = rest[LINE_LIMIT:]
            if b"\r" in rest and time.monotonic() - shown >= BAR_SECONDS:
                shown = time.monotonic()
                self._bar(rest)
        if rest:
            self._line(rest)

    def _line(self, line: bytes) -> None:
        for start in range(0, len(line), LINE_LIMIT):
            self._piece(line[start : start + LINE_LIMIT])

    def _piece(self, piece: bytes) -> None:
        """Forward a line, or a part of one that is too long, the rank taken off its front."""
        text = piece.decode("utf-8", "replace")
        match = RANK.match(text) if self.only is None else None
        if match:
            self._rank = self._rank_of(match)
            text = self._joined(text[match.end() :])
        elif self._whole:
            self._rank = self.only  # otherwise the piece goes on with a line that was too long
        self._whole = text.endswith("\n")
        self.send({"e": "line", "r": self._rank, "s": self.name, "x": text.rstrip("\n")})

    def _joined(self, text: str) -> str:
        """The line without the prefixes inside, which torchrun puts before every fragment that it happens to read.

        Where another rank's fragment follows, the line before it was left without an end, and is told by itself.
        """
        if "@rank" not in text:
            return text
        line, *rest = FRAGMENT.split(text)
        for index in range(0, len(rest), 2):
            rank = int(rest[index])
            if rank != self._rank:
                self.send({"e": "line", "r": self._rank, "s": self.name, "x": line})
                self._rank, line = rank, ""
            line += rest[index + 1]
        return line

    def _rank_of(self, match: "re.Match[str]") -> int:
        return int(match.group(1)) if match.group(1) is not None else self.first_rank + int(match.group(2))

    def _bar(self, rest: bytes) -> None:
        """Tell the last state of a bar. Bars of several ranks share a line: the last fragment's rank has drawn it."""
        text = rest[-LINE_LIMIT:].decode("utf-8", "replace")
        match = RANK.match(text)
        rank = self._rank_of(match) if match else None if self._whole else self._rank
        for found in FRAGMENT.finditer(text):
            rank = int(found.group(1))
        rank = rank if self.only is None else self.only
        state = RANK.sub("", FRAGMENT.sub("", text)).rstrip("\r").rpartition("\r")[2]
        self.send({"e": "bar", "r": rank, "x": state[-BAR_LIMIT:]})
