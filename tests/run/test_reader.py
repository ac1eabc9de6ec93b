"""What a guardian's reader makes of a stream: lines with ranks, long lines in pieces, bars that never end."""

from __future__ import annotations

import os
import threading
import time
from typing import Any

import pytest

from dsdoctor.run.guardian import reader
from dsdoctor.run.guardian.reader import LINE_LIMIT, Reader


def frames_of(chunks: list[bytes], pause: float = 0.02, first_rank: int = 0) -> list[dict[str, Any]]:
    """The frames of what is written to a pipe, piece by piece."""
    inlet, outlet = os.pipe()
    frames: list[dict[str, Any]] = []
    reading = threading.Thread(target=Reader(os.fdopen(inlet, "rb"), "o", first_rank, frames.append).run)
    reading.start()
    with os.fdopen(outlet, "wb", buffering=0) as pipe:
        for chunk in chunks:
            pipe.write(chunk)
            time.sleep(pause)
    reading.join(timeout=10)
    return frames


def test_lines_are_whole_whatever_the_pieces_were() -> None:
    frames = frames_of([b"@rank0@ one\n@ra", b"nk1@ two\npla", b"in\n[default1]:three\nend"], first_rank=4)
    assert [(frame["r"], frame["x"]) for frame in frames] == [
        *((0, "one"), (1, "two"), (None, "plain")),
        *((5, "three"), (None, "end")),
    ]


def test_an_empty_line_is_a_line() -> None:
    assert [frame["x"] for frame in frames_of([b"\n\na\n"])] == ["", "", "a"]


def test_a_bar_is_told_before_its_line_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "BAR_SECONDS", 0.0)
    frames = frames_of([b"@rank3@ \r 1%|x| 1/100", b"@rank3@ \r 2%|x| 2/100\r", b"\n"])
    assert [(frame["e"], frame["r"], frame["x"]) for frame in frames] == [
        ("bar", 3, " 1%|x| 1/100"),
        ("bar", 3, " 2%|x| 2/100"),
        ("line", 3, "\r 1%|x| 1/100\r 2%|x| 2/100\r"),
    ]


def test_bars_of_two_ranks_in_one_line_belong_to_who_drew_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "BAR_SECONDS", 0.0)
    frames = frames_of([b"@rank0@ \r 1%|x| 1/9", b"@rank1@ \r 5%|x| 5/9"])
    assert [(frame["e"], frame["r"], frame["x"]) for frame in frames][:2] == [
        ("bar", 0, " 1%|x| 1/9"),
        ("bar", 1, " 5%|x| 5/9"),
    ]


def test_a_bar_is_told_at_most_every_two_seconds() -> None:
    frames = frames_of([b"\r %d%%|x|" % number for number in range(50)], pause=0.0)
    assert [frame["e"] for frame in frames].count("bar") <= 1


def test_a_line_without_end_comes_in_pieces() -> None:
    frames = frames_of([b"@rank7@ " + b"x" * (LINE_LIMIT + 100), b"y" * LINE_LIMIT + b"\nnext\n"])
    assert [frame["r"] for frame in frames] == [7, 7, 7, None]
    assert sum(len(frame["x"]) for frame in frames[:3]) == 2 * LINE_LIMIT + 100
    assert frames[-1]["x"] == "next"
