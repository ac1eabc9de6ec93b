"""Bytes of any kind into blocks that can be searched: one encoding, no escape sequences, cut at line ends.

A log may be gigabytes long, so nothing here keeps more than one block, and a single line of any length is cut into
pieces. Numbers of lines count newlines only, as `grep -n` and editors do; a carriage return ends a *segment*.
"""

from __future__ import annotations

import codecs
import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple

from dsdoctor.logs.unwrap import unwrap

BLOCK = 1 << 20  # bytes searched at once
OVERLAP = 512  # bytes of a line too long for one block that the next block sees again; longer than any keyword

# CSI (colours, cursor), OSC (titles, links), and the two-byte escapes. Bounded: an unfinished one ends with its line.
_ESCAPES = re.compile(
    rb"\x1b(?:\[[0-?]{0,64}[ -/]{0,8}[@-~]|\][^\x07\x1b\n]{0,2048}(?:\x07|\x1b\\)?"
    rb"|[PX^_][^\x1b\n]{0,2048}(?:\x1b\\)?|[ -/]{0,4}[0-~])?"
)
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


class Block(NamedTuple):
    """A piece of a log. `data` ends with a line unless that is longer than a block."""

    data: bytes
    last: bool = False
    joined: tuple[int, ...] = ()  # offsets at which a line break of the source was taken out

    def breaks(self, start: int, end: int) -> int:
        """How many line breaks of the source lie between two offsets."""
        count = self.data.count(b"\n", start, end)
        if self.joined:
            count += bisect_left(self.joined, end) - bisect_left(self.joined, start)
        return count


def blocks(chunks: Iterable[bytes]) -> Iterator[Block]:
    """Cut a stream of bytes into blocks of about 1 MiB, decoded where they are UTF-16 or UTF-32, escapes taken off.

    The last block is between one and two MiB long where there is so much.
    """
    pieces = _pieces(_ascii_compatible(chunks))
    held = [*islice(pieces, 2)]
    if len(held) == 1:
        data, joined = unwrap(_clean(held[0]))
        yield Block(data, True, joined)
        return
    for data in pieces:
        yield Block(_clean(held.pop(0)))
        held.append(data)
    if len(held) == 2 and held[0].endswith((b"\n", b"\r")):
        held = [held[0] + held[1]]
    for place, data in enumerate(held, 1):
        yield Block(_clean(data), place == len(held))


def _clean(data: bytes) -> bytes:
    """Without escape sequences and NULs."""
    data = _ESCAPES.sub(b"", data) if b"\x1b" in data else data
    return data.translate(None, b"\x00") if b"\x00" in data else data


def _pieces(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in pieces that end at a line or segment end, or, for a line without end, overlap a little."""
    held: list[bytes] = []
    size = 0
    for chunk in chunks:
        for start in range(0, len(chunk), BLOCK):
            held.append(chunk[start : start + BLOCK])
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


def _ascii_compatible(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """UTF-16 and UTF-32 recoded to UTF-8; anything else (UTF-8, GB18030, bytes) as it is, without a byte-order mark."""
    source = iter(chunks)
    head = b""
    for chunk in source:
        head += chunk
        if len(head) >= 64:
            break
    encoding, mark = _sniff(head)
    if encoding == "utf-8":
        yield head[mark:]
        yield from source
        return
    decoder = codecs.getincrementaldecoder(encoding)(errors="replace")
    for start in range(mark, len(head), BLOCK):
        yield _utf8(decoder.decode(head[start : start + BLOCK]))
    for chunk in source:
        for start in range(0, len(chunk), BLOCK):
            yield _utf8(decoder.decode(chunk[start : start + BLOCK]))
    yield _utf8(decoder.decode(b"", final=True))


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "replace")


def _sniff(head: bytes) -> tuple[str, int]:
    """The encoding by its byte-order mark (and the mark's length), or by where the zero bytes of ASCII text stand."""
    for mark, encoding in _BOMS:
        if head.startswith(mark):
            return encoding, len(mark)
    sample = head[:512]
    half = len(sample) // 2
    if half >= 4:
        even, odd = sample[0::2].count(0), sample[1::2].count(0)
        if odd > 0.7 * half and even < 0.1 * half:
            return "utf-16-le", 0
        if even > 0.7 * half and odd < 0.1 * half:
            return "utf-16-be", 0
    return "utf-8", 0
