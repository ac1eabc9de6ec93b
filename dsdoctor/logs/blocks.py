"""Bytes of any kind into blocks that can be searched: one encoding, no escape sequences, cut at line ends.

A log may be gigabytes long, so nothing here keeps more than one block, and a single line of any length is cut into
pieces. Numbers of lines count newlines only, as `grep -n` and editors do; a carriage return ends a *segment*.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple

from dsdoctor.logs.plain import clean, to_utf8
from dsdoctor.logs.reshape import DOCUMENT, is_document, piece, whole, without_pictures
from dsdoctor.logs.shape import Shape

BLOCK = 1 << 20  # bytes searched at once
OVERLAP = 512  # bytes of a line too long for one block that the next block sees again; longer than any keyword


class Block(NamedTuple):
    """A piece of a log. Its data ends with a line unless that is longer than a block."""

    data: bytes
    last: bool = False
    shape: Shape = Shape(b"")

    def breaks(self, start: int, end: int) -> int:
        """How many line breaks of the source lie between two offsets."""
        return self.shape.breaks(start, end)


def blocks(chunks: Iterable[bytes], name: str = "") -> Iterator[Block]:
    """Cut a stream of bytes into blocks of about 1 MiB, decoded where they are UTF-16 or UTF-32, escapes taken off.

    The last block is between one and two MiB long where there is so much. Small sources, and documents (by their
    beginning or their name), are put into the lines that were printed; records of JSON are wherever they stand.
    """
    pieces = (clean(each) for each in _pieces(to_utf8(chunks)))
    held = [*islice(pieces, 2)]
    if len(held) == 2 and is_document(held[0], name):
        held = _gathered(held, pieces)
    if len(held) == 1:
        yield _block(whole(held[0], name), True)
        return
    for data in pieces:
        yield _block(piece(held.pop(0)))
        held.append(data)
    if len(held) == 2 and held[0].endswith((b"\n", b"\r")):
        held = [held[0] + held[1]]
    for place, data in enumerate(held, 1):
        yield _block(piece(data), place == len(held))


def _block(shape: Shape, last: bool = False) -> Block:
    return Block(shape.data, last, shape)


def _gathered(held: list[bytes], pieces: Iterator[bytes]) -> list[bytes]:
    """All of a document in one piece, or, of one that is too large, its beginning and a piece."""
    held = [without_pictures(each) for each in held]
    size = sum(len(each) for each in held)
    for data in pieces:
        held.append(without_pictures(data))
        size += len(held[-1])
        if size > DOCUMENT:
            return [b"".join(held[:-1]), held[-1]]
    return [b"".join(held)]


def _pieces(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in pieces that end at a line or segment end, or, for a line without end, overlap a little.

    Where they are cut does not hang on the chunks.
    """
    held: list[bytes] = []
    size = 0
    for chunk in chunks:
        start = 0
        while start < len(chunk):
            held.append(chunk[start : start + BLOCK - size])
            start += len(held[-1])
            size += len(held[-1])
            if size < BLOCK:
                continue
            data = b"".join(held)
            cut = max(data.rfind(b"\n"), data.rfind(b"\r")) + 1
            rest = data[cut:] if cut else data[-OVERLAP:]
            yield data[:cut] if cut else data
            held, size = [rest], len(rest)
    if size:
        yield b"".join(held)
