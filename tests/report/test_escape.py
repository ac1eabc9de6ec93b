"""Nothing that a host or a log says reaches a screen as control."""

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsdoctor.escape import escape, escape_block, escaped
from dsdoctor.report.model import Evidence, Finding, Severity

ANYTHING = st.text(st.characters(codec=None))  # every code point, halves of surrogate pairs too
BIDI = set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def harmless(text: str) -> bool:
    return not any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") or c in BIDI for c in text)


@given(ANYTHING)
def test_no_control_is_left(text: str) -> None:
    assert harmless(escape(text))
    assert harmless(escape_block(text).replace("\n", ""))


@given(ANYTHING)
def test_escaping_twice_changes_nothing_more(text: str) -> None:
    assert escape(escape(text)) == escape(text)
    assert escape_block(escape_block(text)) == escape_block(text)


@given(st.text(st.characters(categories=("L", "N", "P", "S", "Zs"))))
def test_printable_text_of_any_language_stays(text: str) -> None:
    assert escape(text) == text


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("\x1b[2J\x1b]0;title\x07", r"\x1b[2J\x1b]0;title\x07"),
        ("a\nb\r\tc", r"a\nb\r\tc"),
        ("\x9b31m", r"\x9b31m"),
        ("\udcff", r"\xff"),  # a byte that was not UTF-8
        ("\ud800", r"\ud800"),
        ("abc\u202edef", r"abc\u202edef"),
        ("\U000e0041", r"\U000e0041"),
        ("损失 loss é 😀", "损失 loss é 😀"),
    ],
)
def test_how_it_is_written(text: str, wanted: str) -> None:
    assert escape(text) == wanted


def test_a_block_keeps_lines_and_spreads_tabs() -> None:
    assert escape_block("a\r\nb\n\tc\rd") == "a\nb\n        c\\rd"


def test_a_value_is_clean_in_every_field() -> None:
    finding = Finding("na\x1bme", Severity.INFO, "mess\x07age", ("ho\x1bst",), evidence=(Evidence("\x1b", "\x1b"),))
    clean = escaped(finding)
    assert not re.search("[\x00-\x09\x0b-\x1f]", repr(clean).replace("\\\\", ""))
    assert (clean.name, clean.hosts, clean.evidence[0].source) == (r"na\x1bme", (r"ho\x1bst",), r"\x1b")
