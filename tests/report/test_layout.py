"""Folded host names, wrapping, colour."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsdoctor.report.layout import Look, cells, fold, ranges, wrap


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        ([], ""),
        (["head"], "head"),
        (["gpu01"], "gpu01"),
        ([f"gpu{n:02}" for n in range(1, 9)], "gpu[01-08]"),
        (["gpu8", "gpu9", "gpu10", "gpu11"], "gpu[8-11]"),
        (["gpu1", "gpu01"], "gpu1, gpu01"),
        (["gpu099", "gpu100", "gpu7"], "gpu[099-100], gpu7"),
        (["gpu03", "gpu01", "head", "gpu07", "gpu02"], "gpu[01-03,07], head"),
        (["a1.example.org", "a2.example.org", "a1.example.net"], "a[1-2].example.org, a1.example.net"),
        (["192.0.2.3", "192.0.2.4"], "192.0.2.[3-4]"),
        (["rack1-gpu1", "rack2-gpu1"], "rack1-gpu1, rack2-gpu1"),
        (["n" + "9" * 6000, "n1"], "n" + "9" * 6000 + ", n1"),
        (["gpu1", "gpu1"], "gpu1"),
    ],
)
def test_hosts_are_folded(names: list[str], wanted: str) -> None:
    assert fold(names) == wanted
    assert fold(iter(names)) == wanted


def unfold(text: str) -> set[str]:
    names = set()
    for part in re.split(r", ", text):
        match = re.fullmatch(r"(.*)\[([0-9,-]+)\](.*)", part)
        if match is None:
            names.add(part)
            continue
        for piece in match[2].split(","):
            first, _, last = piece.partition("-")
            for number in range(int(first), int(last or first) + 1):
                names.add(f"{match[1]}{number:0{len(first) if first.startswith('0') else 1}}{match[3]}")
    return names


@given(st.sets(st.from_regex(r"[ab]{1,2}[0-9]{0,3}(\.x)?", fullmatch=True), min_size=1, max_size=30))
def test_folding_loses_and_adds_no_host(names: set[str]) -> None:
    assert unfold(fold(sorted(names))) == names


def test_ranges() -> None:
    assert ranges([5, 0, 1, 2, 2]) == "0-2,5"
    assert ranges([]) == ""


@given(st.text(alphabet="ab 你，好\n", max_size=80), st.integers(8, 40))
def test_wrapping_keeps_the_words_and_the_width(text: str, width: int) -> None:
    lines = wrap(text, width, "> ", "  ")
    squeezed = "".join(text.split())
    assert "".join("".join(line[2:].split()) for line in lines) == squeezed
    for line in lines:
        assert cells(line) <= width or " " not in line[2:]  # only a single unbreakable word may stick out


def test_a_path_is_never_broken() -> None:
    assert wrap("see /a/very/long/path/that/goes/on now", 12) == ["see", "/a/very/long/path/that/goes/on", "now"]


def test_without_a_width_a_text_is_one_line() -> None:
    assert wrap("a\nb  c " * 50, None, "  ") == ["  " + " ".join(["a b c"] * 50)]


def test_colour_only_where_asked() -> None:
    assert Look(color=False).paint("x", "bold", "red") == "x"
    assert Look(color=True).paint("x", "bold", "red") == "\x1b[1;31mx\x1b[0m"
    assert Look(unicode=False).mark("ok").isascii()
