"""Whatever the bytes are, an answer comes, harmless to show, in bounded time and memory."""

import tracemalloc
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsdoctor.escape import escape_block
from dsdoctor.logs.diagnose import diagnose
from dsdoctor.logs.keywords import PLENTY, Keywords
from dsdoctor.logs.rules import RuleSet, load_rules
from dsdoctor.report.model import Report

RULES: RuleSet = load_rules()
WORDS = sorted({word for matcher in RULES.matchers for word in matcher.words})


def texts(report: Report) -> Iterator[str]:
    """Everything in a report that came out of the log or was made from it."""
    yield from report.notes
    for finding in report.findings:
        yield finding.message
        yield from finding.hosts
        yield from (each.text for each in finding.evidence)
        for fix in finding.fix:
            yield fix.title
            yield from fix.commands
    if report.verdict:
        yield from (text for text in (report.verdict.text, report.verdict.host) if text)


def harmless(report: Report) -> bool:
    return all(escape_block(text) == text and "\n" not in text for text in texts(report))


@given(st.lists(st.binary(max_size=2000), max_size=6))
def test_any_bytes_end_in_an_answer(chunks: list[bytes]) -> None:
    report = diagnose([("x", chunks)], RULES)
    assert report.verdict is not None
    assert harmless(report)


NOISE = st.sampled_from(
    ["\x1b[2J", "\x1b]0;x\x07", "\r", "\n", "\u202e", "\x00", "\x08", "`", "$(reboot)", "a" * 100, "\x9b31m", "\ud7ff"]
)


@given(
    st.lists(st.one_of(st.sampled_from(WORDS), NOISE, st.text(max_size=30)), max_size=40),
    st.sampled_from(["utf-8", "utf-16", "gb18030"]),
)
def test_keywords_in_any_surroundings_end_in_an_answer(parts: list[str], encoding: str) -> None:
    report = diagnose([("x", ["".join(parts).encode(encoding, "replace")])], RULES)
    assert report.verdict is not None
    assert harmless(report)


def test_escape_sequences_of_a_log_reach_nobody() -> None:
    line = (
        b"\x1b[31m[rank1]: OSError: \x1b]0;owned\x07/x\x1b[2K\x9b\xe2\x80\xaey is not a local folder and "
        b"is not a valid model identifier\x1b[0m\n"
    )
    report = diagnose([("x", [line])], RULES)
    assert report.verdict is not None and report.verdict.cause == "model-path-missing"
    assert harmless(report)


@pytest.mark.parametrize("head", [b"", b"Traceback (most recent call last):\n"])
def test_a_line_of_100_megabytes_is_searched_in_pieces(head: bytes) -> None:
    def chunks() -> Iterator[bytes]:
        yield head
        for _ in range(100):
            yield b"x" * (1 << 20)
        yield b" RuntimeError: CUDA out of memory. " + b"y" * (1 << 20) + b"\n"

    report = diagnose([("x", chunks())], RULES)
    assert report.verdict is not None and report.verdict.cause == "cuda-oom"
    assert len(report.verdict.text or "") <= 4096


@pytest.mark.parametrize(
    "line",
    [
        b"Traceback (most recent call last):\n",
        b"RuntimeError: CUDA out of memory. Tried to allocate 2 MiB\n",
        b"{'loss': 1.0, 'learning_rate': 0.0}\n",
        b'  File "/home/alice/x.py", line 3, in f\n',
        b"```\n",
        b"node%d: [rank%d]: ValueError: x\n",
    ],
)
def test_a_line_repeated_without_end(line: bytes) -> None:
    def chunks() -> Iterator[bytes]:
        for number in range(100):
            yield b"".join(line % (number, row) if b"%d" in line else line for row in range(1000))

    report = diagnose([("x", chunks())], RULES)
    assert report.verdict is not None
    assert all(len(finding.evidence) <= 6 for finding in report.findings)


def test_a_flood_of_one_word_is_left_out_until_the_last_block() -> None:
    search = Keywords([("flood", 0), ("rare", 1)]).search()
    block = b"flood " * 10_000 + b"rare"
    first = search.hits(block, last=False)
    assert len(first) == PLENTY + 1
    assert [block[start:end] for start, end, _ in first[-2:]] == [b"flood", b"rare"]
    assert first[-2][0] == 6 * 9_999  # the last one too, not only the first
    assert [(block[start:end], word) for start, end, word in search.hits(block, last=False)] == [(b"rare", 1)]
    assert len(search.hits(block, last=True)) == PLENTY + 1


def test_a_cause_behind_a_flood_is_found() -> None:
    line = b"[rank%d]: {'loss': 1.0, 'learning_rate': 1e-05, 'epoch': 0.1} RuntimeWarning: x Error: y\n"
    chunks = [line % (number % 8) * 10_000 for number in range(20)]
    report = diagnose([("x", [*chunks, b"[rank3]: IndexError: index out of range in self\n"])], RULES)
    assert report.verdict is not None
    assert (report.verdict.cause, report.verdict.rank, report.verdict.line) == (
        "embedding-index-out-of-range",
        3,
        200_001,
    )


@pytest.mark.slow
def test_memory_does_not_grow_with_the_log() -> None:
    block = b"".join(
        b"[rank%d]: {'loss': 1.%d, 'learning_rate': 1e-05}\n[rank%d]: RuntimeWarning: Error: x\n" % (row, row, row)
        for row in range(5000)
    )

    def peak(times: int) -> int:
        tracemalloc.start()
        diagnose([("x", (block for _ in range(times)))], RULES)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    small, large = peak(10), peak(max(20, 50_000_000 // len(block)))
    assert large < small + 8_000_000  # bytes; the log grew by 45 MB
