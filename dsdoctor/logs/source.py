"""What a stream of bytes may have to say of itself."""

from __future__ import annotations

import re

HEAD = 1 << 16  # bytes by which text is told from other things
FEW = 0.03  # of the bytes of a text may be control characters that no text has

_MAGIC = (
    (b"\x7fELF", "an ELF program, library or core dump"),
    (b"%PDF-", "a PDF"),
    (b"\x89PNG", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
    (b"GIF8", "a picture"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x89HDF", "an HDF5 file"),
    (b"PAR1", "a Parquet file"),
    (b"SQLite format 3", "an SQLite database"),
    (b":W&B", "wandb's own record (the text is in files/output.log beside it)"),
    (b"\x80\x02", "a pickle"),
    (b"\x80\x04", "a pickle"),
    (b"\x80\x05", "a pickle"),
    (b"MZ", "a Windows program"),
    (b"7z\xbc\xaf", "a 7z archive"),
    (b"Rar!", "a RAR archive"),
)
# What text has none of; \x1b begins colours, \x07 and \x08 are what terminals record, \x0c a page.
_STRANGE = bytes((*range(1, 7), *range(14, 27), *range(28, 32), 127))
_UTF16 = (b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")  # and UTF-32
_HOLE = re.compile(rb"\x00{64,}")  # a file that was cut while it was written, or a disk that was not flushed


class IncompleteError(Exception):
    """A source that ends before its time: what was read of it counts, and the reason is told."""


class NotTextError(IncompleteError):
    """A source that is no log at all, so that nothing is missing without it."""


def not_text(head: bytes) -> str | None:
    """What a source is that is no log, by its first bytes (of any encoding); None for text."""
    if not head or head.startswith(_UTF16):
        return None
    sample = _HOLE.sub(b"", head[:HEAD])
    zeros = sample.count(0)
    strange = len(sample) - len(sample.translate(None, _STRANGE))
    if strange <= FEW * len(sample) and (zeros <= FEW * len(sample) or _wide(sample)):
        return None
    return next((what for magic, what in _MAGIC if head.startswith(magic)), "no text")


def _wide(sample: bytes) -> bool:
    """Whether the zeros are those of UTF-16."""
    counts = sorted(sample[place::4].count(0) for place in range(4))
    quarter = max(1, len(sample) // 4)
    return counts[1] * 20 < quarter and counts[2] * 5 > quarter  # two of four places have none
