"""Any bytes in any pieces: always an answer, the same however the stream is cut, harmless in every form of report."""

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsdoctor.escape import escape_block
from dsdoctor.logs.blocks import BLOCK, blocks
from dsdoctor.logs.diagnose import diagnose
from dsdoctor.report.formats import FORMATS, render
from dsdoctor.report.layout import Look
from dsdoctor.report.model import Report, Severity
from tests.logs.test_hostile import RULES, WORDS

TRACEBACK = 'Traceback (most recent call last):\n  File "/home/alice/t.py", line 3, in f\n    f()\nValueError: x\n'
# What begins something that this code looks into, and what belongs in no log.
HOSTILE = [
    *(
        b"\n",
        b"\r",
        b"\r\n",
        b"\n\n",
        b" ",
        b"\t",
        b"    ",
        b"> ",
        b"```\n",
        b"~~~\n",
        b"# A\n",
        b"- ",
        b"\x00",
        b"\x00" * 99,
    ),
    *(
        b"\x1b[31m",
        b"\x1b[2J",
        b"\x1b]0;x\x07",
        b"\x1b]8;;http://x\x1b\\",
        b"\x1bP",
        b"\x1b",
        b"\x9b31m",
        b"\x07",
        b"\x08",
    ),
    *(
        "\u202e\u2066\u2028\ufeff\u200b\u00ad".encode(),
        b"\xff\xfe",
        b"\xfe\xff",
        b"\xef\xbb\xbf",
        b"\xff",
        b"\xc3",
        b"\xed\xa0\x80",
    ),
    *("训练失败".encode("gb18030"), "训练失败".encode(), "step 1\n".encode("utf-16-le"), "训练\n".encode("utf-16-be")),
    *(
        b'{"log":"',
        b'{"message": "x\\ud800\\u001b[2J\\n',
        b'"}',
        b'","rank":3,"host":"a\\nb"}\n',
        b'{"exception":[{"exc_type":',
    ),
    *(b'[{"line":', b'"time":1e999}', b'        "message": "', b'",\n', b"{" * 50, b"[" * 50, b"\\", b'\\"'),
    *(b'{"cells":[{"outputs":[{"text":["', b'"]}],"execution_count":2}],"nbformat":4}'),
    *(
        b"<!DOCTYPE html>",
        b"<html>",
        b"<pre>",
        b"</pre>",
        b"<script>",
        b"<!--",
        b"-->",
        b"&#x1b;",
        b"&lt;",
        b"<",
        b">",
        b"<br>",
    ),
    *(
        b"node1:3| ",
        b"[rank7]: ",
        b"[default1]:",
        b"3: ",
        b"1: ",
        b"2: ",
        b"     1\t",
        b"     2\t",
        b"node2: ",
        b"In [3]| ",
    ),
    *(
        b"[pod/x-0/y] ",
        b"2026-01-01T00:00:00Z ",
        b"Nov 22 02:45:51 node1 t[1]: ",
        b"[1,0]<stderr>:",
        b"srun: error: n1: task 3: ",
    ),
    *(
        b" 10%|\xe2\x96\x88  | 1/9 [00:00<?, ?it/s]",
        b"{'loss': nan, 'learning_rate': 0.0}\n",
        b"{'train_runtime': 1}\n",
    ),
    *(
        TRACEBACK.encode(),
        b"ValueError: x\n",
        b"+ deepspeed train.py\n",
        b"exits with return code = -9\n",
        b"$(reboot)",
        b"`id`",
    ),
    *(
        b"rank      : 1 (local_rank: 1)\n",
        b"host      : \x1bhost\n",
        b"x" * 81,
        b"=" * 80 + b"\n",
        b"a" * 79 + b"\n",
        b"y" * 5000,
    ),
]

pieces = st.lists(
    st.one_of(
        st.sampled_from(HOSTILE),
        st.sampled_from(WORDS).map(str.encode),
        st.binary(max_size=40),
        st.text(max_size=20).map(lambda text: text.encode("utf-8", "surrogatepass")),
    ),
    max_size=60,
).map(b"".join)
names = st.one_of(
    st.sampled_from(
        ["train.log", "notes.md", "page.html", "attempt_0/1/stderr.log", "node1/rank3.log", "a\x1b[2J\u202e/rank1.log"]
    ),
    st.text(max_size=20),
)


def answer(data: bytes, name: str, cuts: list[int]) -> Report:
    places = sorted({0, len(data), *(min(cut, len(data)) for cut in cuts)})
    return diagnose([(name, [data[start:end] for start, end in pairwise(places)])], RULES)


@settings(max_examples=300)
@given(pieces, names, st.lists(st.integers(0, 4000), max_size=8))
def test_the_answer_is_the_same_however_the_stream_is_cut(data: bytes, name: str, cuts: list[int]) -> None:
    whole = answer(data, name, [])
    assert whole.verdict is not None
    assert answer(data, name, cuts) == whole
    assert answer(data, name, [*range(min(len(data), 200))]) == whole


@settings(max_examples=25)
@given(pieces, st.sampled_from([b"x", b"ab\n", b"{'loss': 1.0}\n", b'{"log": "x"}\n']), st.integers(1, 2 * BLOCK))
def test_a_stream_of_several_blocks_is_cut_where_it_is_by_its_bytes_alone(
    data: bytes, filler: bytes, size: int
) -> None:
    whole = data + filler * ((BLOCK + BLOCK // 2) // len(filler)) + data
    chunks = [whole[start : start + size] for start in range(0, len(whole), size)] if size > 999 else [whole]
    assert list(blocks(chunks)) == list(blocks([whole]))


@settings(max_examples=200)
@given(pieces, names)
def test_no_form_of_a_report_holds_a_control_character(data: bytes, name: str) -> None:
    report = answer(data, name, [])
    for form in FORMATS:
        text = render(report, form, Look(), verbose=True, fail_on=Severity.ERROR)
        assert escape_block(text) == text, form
        assert "\t" not in text or form == "html"
        if form in ("json", "sarif"):
            json.loads(text)
        elif form == "junit":
            ET.fromstring(text)


@given(st.binary(max_size=3000))
def test_any_bytes_of_a_file_end_in_an_answer_or_a_refusal(data: bytes) -> None:
    from dsdoctor.logs.source import not_text

    what = not_text(data)
    assert what is None or what
    assert diagnose([("x", [data])], RULES).verdict is not None


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind",
    ["one line", "one line in UTF-16", "one record", "one page", "one notebook", "one line of braces", "one traceback"],
)
def test_100_megabytes_in_one_line_take_little_memory(kind: str) -> None:
    """Measured in a process of its own, with all that Python and the rules take.

    By VmHWM: ru_maxrss begins with what the process that starts it had.
    """
    code = f"""
from dsdoctor.logs.diagnose import diagnose
def chunks():
    head, body, encoding = {{
        "one line": ("", "x", "ascii"),
        "one line in UTF-16": ("\\ufeff", "x", "utf-16-le"),
        "one record": ('{{"message": "', "x", "ascii"),
        "one page": ("<html>", "<b>", "ascii"),
        "one notebook": ('{{"cells": [{{"outputs": [{{"text": "\\U0001f600', "x", "utf-8"),
        "one line of braces": ("", '{{"', "ascii"),
        "one traceback": ("Traceback (most recent call last):\\n", "File ", "ascii"),
    }}[{kind!r}]
    yield head.encode(encoding)
    piece = (body * (1 << 20))[: 1 << 18].encode(encoding)
    for _ in range(100_000_000 // len(piece)):
        yield piece
    yield " RuntimeError: CUDA out of memory. Tried\\n".encode(encoding)
cause = diagnose([("x", chunks())]).verdict.cause
print(cause, next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ})
    cause, kilobytes = done.stdout.split()
    assert cause == "cuda-oom"
    assert int(kilobytes) < 200_000
