"""Bytes into lines: encodings, prefixes, records, pages, wrapped pastes; nothing that moves a cursor is left."""

from collections.abc import Iterator

from dsdoctor.logs.blocks import blocks
from dsdoctor.logs.lines import LONGEST as LINE
from dsdoctor.logs.lines import LineParser
from dsdoctor.logs.places import place_of
from dsdoctor.logs.plain import to_utf8
from dsdoctor.logs.unwrap import unwrap
from tests.fuzz import diagnose

LONGEST = 20_000  # bytes of an input


def one(data: bytes) -> None:
    """The first byte chooses the size of the chunks."""
    size, log = (data[0] if data else 0) + 1, data[1:]
    recoded = b"".join(to_utf8([log]))
    assert recoded == b"".join(to_utf8(log[at : at + size] for at in range(0, len(log), size)))
    parser = LineParser()
    for number, raw in enumerate(recoded.split(b"\n"), 1):
        line = parser.parse(number, raw)
        assert len(line.text) <= LINE and len(line.body) <= LINE * 8
        assert not any(ord(each) < 32 or 0x7F <= ord(each) < 0xA0 for each in line.text + line.body), line
        assert line.rank is None or 0 <= line.rank < 10**6
    lines = list(enumerate(recoded.decode("utf-8", "replace").split("\n"), 1))
    joined = unwrap(lines)
    whole = "".join(text for _, text in joined)
    filled = "".join(text.rstrip() for _, text in lines)  # of rows that a console has filled with blanks
    assert whole in ("".join(text for _, text in lines), filled)
    place_of(recoded[:300].decode("utf-8", "replace"))
    for name in ("train.log", "notes.md", "page.html"):
        number = 1
        for block in blocks([log], name):
            for at in range(0, len(block.data), 97):
                assert number + block.breaks(0, at) >= 0
            number += block.breaks(0, len(block.data))
        assert 1 <= number <= log.count(b"\n") + recoded.count(b"\n") + 1


def seeds() -> Iterator[bytes]:
    """Those of the logs."""
    yield from diagnose.seeds()


def words() -> Iterator[str]:
    """What begins prefixes and records."""
    yield from (
        '{"log":"',
        '{"message":"',
        '"}',
        "[pod/a-0/b] ",
        "[1,0]<stderr>:",
        "In [3]| ",
        "srun: error: ",
        "```",
        "<pre>",
    )
    yield from (
        "2026-01-01T00:00:00Z ",
        "Nov 22 02:45:51 n t[1]: ",
        "[rank1]: ",
        " 10%|",
        "worker-1 pytorch ",
        "\u202e",
        "\x1b[",
    )
