"""A log of any bytes, cut anywhere, under any name: an answer, always the same, harmless in every form of report."""

import json
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

from dsdoctor.escape import escape_block
from dsdoctor.logs.diagnose import conclude
from dsdoctor.logs.rules import load_rules
from dsdoctor.logs.scan import Scanner
from dsdoctor.logs.source import not_text
from dsdoctor.report.formats import FORMATS, render
from dsdoctor.report.layout import Look
from dsdoctor.report.model import Report, Severity
from dsdoctor.yamlfile import load

LONGEST = 8_000  # bytes of an input
RULES = load_rules()
SCANNER = Scanner(RULES)  # its automaton takes most of the time of a short log
LOGS = Path(__file__).resolve().parent.parent / "logs"
NAMES = ("train.log", "notes.md", "page.html", "train.ipynb", "attempt_0/1/stderr.log", "a\x1b[2J\u202e/rank1.log", "")


def one(data: bytes) -> None:
    """The first two bytes choose the name, the form and the size of the chunks."""
    first, second = (*data[:2], 0, 0)[:2]
    log, name, form = data[2:], NAMES[first % len(NAMES)], FORMATS[first // len(NAMES) % len(FORMATS)]
    not_text(log)
    report = _answer(name, [log])
    assert report.verdict is not None
    size = second + 1
    assert _answer(name, [log[at : at + size] for at in range(0, len(log), size)]) == report
    text = render(report, form, Look(), verbose=True, fail_on=Severity.ERROR)
    assert escape_block(text) == text or form == "html"
    assert not set(text) & {"\x1b", "\x00", "\x07", "\x08", "\x9b", "\u202e"}
    if form in ("json", "sarif"):
        json.loads(text)
    elif form == "junit":
        ET.fromstring(text)


def _answer(name: str, chunks: list[bytes]) -> Report:
    return conclude(list(SCANNER.scan_all([(name, chunks)])), RULES)


def seeds() -> Iterator[bytes]:
    """The known cases, the samples of other programs, and what begins the forms that are looked into."""
    for path in sorted((LOGS / "cases").glob("*.yaml")):
        yield b"\x00\x40" + load(path)["log"].encode()[:4000]
    for path in sorted((LOGS / "samples").rglob("*")):
        if path.is_file():
            yield bytes([len(path.name) % 42, 99]) + path.read_bytes()[:8000]
    for text in (
        '{"cells":[{"outputs":[{"text":["Error: x"]}]}],"nbformat":4}',
        "<html><pre>Error: x</pre>",
        "```\nx\n```\n",
    ):
        yield b"\x01\x03" + text.encode()
        yield b"\x08\x05" + text.encode("utf-16")


def words() -> Iterator[str]:
    """What a mutation may put in."""
    for matcher in RULES.matchers:
        yield from matcher.words
