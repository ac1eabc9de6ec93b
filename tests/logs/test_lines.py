"""Lines: prefixes of launchers, progress bars, encodings, control characters, times."""

import codecs

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsdoctor.logs.blocks import BLOCK, OVERLAP, blocks
from dsdoctor.logs.lines import LONGEST, Line, LineParser, harmless
from dsdoctor.logs.plain import decode, to_utf8
from dsdoctor.logs.unwrap import unwrap


def parse(text: str, parser: LineParser | None = None) -> Line:
    return (parser or LineParser()).parse(1, text.encode())


@pytest.mark.parametrize(
    ("text", "host", "rank", "body"),
    [
        ("RuntimeError: x", None, None, "RuntimeError: x"),
        ("node2:3| RuntimeError: x", "node2", 3, "RuntimeError: x"),
        ("node2:-| RuntimeError: x", "node2", None, "RuntimeError: x"),
        ("[gpu-a.lan:12] RuntimeError: x", "gpu-a.lan", 12, "RuntimeError: x"),
        ("[12:30] RuntimeError: x", None, None, "[12:30] RuntimeError: x"),
        ("192.0.2.5: RuntimeError: x", "192.0.2.5", None, "RuntimeError: x"),
        ("10.x.x.x Last error:", "10.x.x.x", None, "Last error:"),
        ("node2: RuntimeError: x", "node2", None, "RuntimeError: x"),
        ("ddp-0: [rank4]: RuntimeError: x", "ddp-0", 4, "RuntimeError: x"),
        ("[default1]:[rank1]: RuntimeError: x", None, 1, "RuntimeError: x"),
        ("[trainer0|7]:RuntimeError: x", None, 7, "RuntimeError: x"),
        ("[1,2]<stderr>:RuntimeError: x", None, 2, "RuntimeError: x"),
        ("3: RuntimeError: x", None, 3, "RuntimeError: x"),
        ("(Worker pid=9, ip=192.0.2.75) RuntimeError: x", "192.0.2.75", None, "RuntimeError: x"),
        ("[pod/trainer-1/pytorch] RuntimeError: x", "trainer-1", None, "RuntimeError: x"),
        ("trainer-1  | RuntimeError: x", "trainer-1", None, "RuntimeError: x"),
        ("2026-11-22T10:00:00.123Z RuntimeError: x", None, None, "RuntimeError: x"),
        ("[2024-04-09 18:31:50,463] [INFO] [launch.py:316:main] x", None, None, "[INFO] [launch.py:316:main] x"),
        ("[E ProcessGroupNCCL.cpp:489] [Rank 5] timeout", None, 5, "[E ProcessGroupNCCL.cpp:489] [Rank 5] timeout"),
        ("v100-11:41449:41449 [6] NCCL INFO x", "v100-11", None, "v100-11:41449:41449 [6] NCCL INFO x"),
        ('{"log":"RuntimeError: x\\n","stream":"stderr"}', None, None, "RuntimeError: x"),
        ('{"message":"RuntimeError: x","hostname":"node1","rank":2}', "node1", 2, "RuntimeError: x"),
        ("node3: [rank4]:   RuntimeError: x", "node3", 4, "RuntimeError: x"),
        ("[1,mpirank:3,algo-2]<stdout>:RuntimeError: x", "algo-2", 3, "RuntimeError: x"),
        ("Sun Nov 22 02:46:26 2026[1,0]<stderr>:RuntimeError: x", None, 0, "RuntimeError: x"),
        ("2026-11-22T10:00:00.1Z stderr F   RuntimeError: x", None, None, "RuntimeError: x"),
        ("llm-worker-1 pytorch RuntimeError: x", "llm-worker-1", None, "RuntimeError: x"),
        ("[llm-worker-1 any-name] RuntimeError: x", "llm-worker-1", None, "RuntimeError: x"),
        ("train.1.w8x5q9k2@node1    | RuntimeError: x", "node1", None, "RuntimeError: x"),
        ("Nov  2 02:45:51 node1 train[1234]: RuntimeError: x", "node1", None, "RuntimeError: x"),
        ("Nov 22 02:45:51 node1 kernel: [ 18.3] Killed", "node1", None, "[ 18.3] Killed"),
        ("In [3]| RuntimeError: x", None, None, "RuntimeError: x"),
        (">> RuntimeError: x", None, None, "RuntimeError: x"),
        ("0: slurmstepd-node1: error: killed", "node1", None, "slurmstepd-node1: error: killed"),
        ("srun: error: node2: task 3: Killed", "node2", 3, "srun: error: node2: task 3: Killed"),
        ("srun: error: node1: tasks 0-1: Killed", "node1", None, "srun: error: node1: tasks 0-1: Killed"),
        ("slurmstepd: error: x", None, None, "slurmstepd: error: x"),
        # words before a colon that are no hosts
        ("worker-1 failed to start", None, None, "worker-1 failed to start"),
        ("srun: error: slurm_receive_msgs: x", None, None, "srun: error: slurm_receive_msgs: x"),
        ("launch.py: error: x", None, None, "launch.py: error: x"),
        ("g++-11: error: x", None, None, "g++-11: error: x"),
        ("wandb: Run x", None, None, "wandb: Run x"),
        ("python3.10: can't open file", None, None, "python3.10: can't open file"),
        ("ValueError: x", None, None, "ValueError: x"),
        ("epoch-1: x", None, None, "epoch-1: x"),
    ],
)
def test_prefixes_of_launchers(text: str, host: str | None, rank: int | None, body: str) -> None:
    line = parse(text)
    assert (line.host, line.rank, line.body) == (host, rank, body)
    assert line.text == text


def test_a_name_that_the_launcher_announced_is_a_host() -> None:
    parser = LineParser()
    assert parse("alpha: x", parser).host is None
    parser.announce(["alpha", "beta"])
    assert parse("alpha: x", parser).host == "alpha"


def test_the_host_and_rank_of_a_file_stand_in_for_missing_prefixes() -> None:
    parser = LineParser("node3", 7)
    assert parse("x", parser)[4:6] == ("node3", 7)
    assert parse("[rank2]: x", parser)[4:6] == ("node3", 2)


def test_indentation_is_counted_after_the_prefix() -> None:
    assert parse("[rank0]:   File x").indent == 2
    assert parse("node1:0|     raise").indent == 4
    assert parse("    x").indent == 4


@pytest.mark.parametrize(
    ("text", "body"),
    [
        (
            "  0%|          | 0/27 [00:00<?, ?it/s]Traceback (most recent call last):",
            "Traceback (most recent call last):",
        ),
        ("Map (num_proc=16):  20%|██   | 600/3000 [00:02<00:07, 320.11 examples/s]Fatal error", "Fatal error"),
        (
            "100%|██████████| 2/2 [00:18<00:00,  9.08s/it]100%|██████████| 2/2 [00:18<00:00,  9.0s/it] done",
            "done",
        ),
        ("14%|██▎    | 291/2013 [07:44<45:53,  1.60s/it]", "14%|██▎    | 291/2013 [07:44<45:53,  1.60s/it]"),
    ],
)
def test_a_progress_bar_gives_way_to_what_follows_it(text: str, body: str) -> None:
    assert parse(text).body == body


@pytest.mark.parametrize(
    ("early", "late"),
    [
        ("[2023-09-10 11:46:00,260] x", "[2023-09-10 11:46:00,261] x"),
        ("12/15/2025 13:37:48 - x", "12/15/2025 13:37:49 - x"),
        ("[rank6]:[E901 05:20:04.904 P.cpp:684] x", "[rank6]:[E901 05:20:04.905 P.cpp:684] x"),
        ("W0409 07:28:49.530000 1359 x", "W1009 07:28:49.530000 1359 x"),
        ("2024-11-28T07:42:14.532Z x", "2024-11-28 07:42:15 x"),
    ],
)
def test_times_order_lines(early: str, late: str) -> None:
    first, second = parse(early).time, parse(late).time
    assert first is not None and second is not None and first < second


def test_a_time_without_a_year_takes_that_of_the_last_full_date() -> None:
    parser = LineParser()
    full = parse("[2026-11-22 01:00:00,000] x", parser).time
    glog = parse("[rank0]:[W1122 01:00:01.5 reducer.cpp:1529] x", parser).time
    assert full is not None and glog is not None and glog - full == 1.5


@pytest.mark.parametrize("text", ["x 99/99/2024 99:99:99 y", "[E9999 99:99:99.1 x", "0000-00-00 00:00:00"])
def test_what_looks_like_a_time_and_is_none(text: str) -> None:
    assert parse(text).time is None


def test_a_line_is_cut_to_what_is_kept() -> None:
    assert len(parse("x" * 100_000).text) == LONGEST


CHINESE = "训练失败：显存不足，请检查配置 CUDA out of memory"


def test_chinese_in_gb18030_is_read() -> None:
    assert decode(CHINESE.encode("gb18030")) == CHINESE


def test_chinese_that_was_read_as_windows_1252_before_is_put_right() -> None:
    wrong = CHINESE.encode().decode("latin-1")
    assert decode(wrong.encode()) == CHINESE
    lost = "在代码中做出如下修正，解决不知道导入精度为多少的问题".encode().decode("cp1252", "ignore")  # bytes are gone
    assert decode(lost.encode()).count("\ufffd") == 4 and "导入精度" in decode(lost.encode())


@pytest.mark.parametrize("text", ["Ã© and Â± stay", "naïve café, größer", "100%|███▎| â€œquotedâ€\u009d", "für 训练"])
def test_what_is_no_chinese_stays_as_it_is(text: str) -> None:
    assert decode(text.encode()) == text


def test_bytes_that_are_nothing_come_out_with_replacement_characters() -> None:
    assert "�" in decode(b"\xff\xfe\xfa error \x80\x81")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_other_encodings_become_utf_8(encoding: str) -> None:
    text = "step 1\nCUDA out of memory\n"
    data = text.encode(encoding)
    if encoding in ("utf-16-be",):
        data = codecs.BOM_UTF16_BE + data
    cut = [data[start : start + 7] for start in range(0, len(data), 7)]
    assert b"".join(block.data for block in blocks(cut)) == text.encode()


def recoded(data: bytes, size: int) -> str:
    return b"".join(to_utf8(data[start : start + size] for start in range(0, len(data), size))).decode()


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 4096, 1 << 20])
@pytest.mark.parametrize("order", ["le", "be"])
def test_8_bit_text_amid_utf_16_is_kept(order: str, size: int) -> None:
    mark = codecs.BOM_UTF16_LE if order == "le" else codecs.BOM_UTF16_BE
    wide, narrow = (
        "开始训练 step 1\r\n",
        "Traceback of what cmd appended: größer\r\nRuntimeError: CUDA out of memory\r\n",
    )
    data = mark + (wide * 300).encode(f"utf-16-{order}") + narrow.encode() + wide.encode(f"utf-16-{order}")
    assert recoded(data, size) == wide * 300 + narrow + wide


MIXED = [
    *(
        "开始训练\n",
        "开\n",
        "a",
        "step 1 of a thousand, and so on and on\r\n",
        "\n",
        "größer",
        "x" * 31,
        "x" * 40,
        "y" * 5000,
    ),
]


@settings(max_examples=300)
@given(
    st.sampled_from(["utf-16-le", "utf-16-be"]),
    st.lists(st.tuples(st.sampled_from(MIXED), st.booleans()), max_size=12),
    st.integers(1, 300),
    st.binary(max_size=3),
)
def test_mixed_encodings_are_told_apart_however_the_stream_is_cut(
    encoding: str, parts: list[tuple[str, bool]], size: int, odd: bytes
) -> None:
    mark = codecs.BOM_UTF16_LE if encoding == "utf-16-le" else codecs.BOM_UTF16_BE
    data = mark + odd + b"".join(text.encode(encoding if wide else "utf-8") for text, wide in parts)
    whole = b"".join(to_utf8([data]))
    assert b"".join(to_utf8(data[at : at + size] for at in range(0, len(data), size))) == whole


@pytest.mark.parametrize("size", [1, 5, 1 << 20])
def test_utf_16_alone_is_read_exactly(size: int) -> None:
    text = "Fehler: größer als 训练失败 😀\n" * 500
    assert recoded(text.encode("utf-16"), size) == text


@pytest.mark.parametrize(
    "text",
    [
        "\x1b[1;31mRuntimeError\x1b[0m: x",
        "\x1b]0;title\x07RuntimeError: x",
        "\x1b]8;;http://x\x1b\\RuntimeError: x\x1b]8;;\x1b\\",
        "\x1bPq\x1b\\RuntimeError: x",
        "\x1b(BRuntimeError: x",
    ],
)
def test_escape_sequences_are_taken_off(text: str) -> None:
    assert b"".join(block.data for block in blocks([text.encode()])) == b"RuntimeError: x"


def test_direction_marks_and_control_characters_are_taken_off() -> None:
    assert harmless("a\u202eb\u200bc\x9bd\x07e\u2028f\tg") == "abcdef    g"


@given(st.text())
def test_nothing_that_moves_a_cursor_is_left(text: str) -> None:
    assert not any(
        ord(character) < 0x20 or 0x7F <= ord(character) < 0xA0 for character in harmless(text) if character != "\n"
    )


# --- blocks


def numbers(chunks: list[bytes], word: bytes) -> list[int]:
    """On which lines a word stands, by way of the blocks."""
    found = []
    number = 1
    for block in blocks(chunks):
        place = block.data.find(word)
        while place >= 0:
            found.append(number + block.breaks(0, place))
            place = block.data.find(word, place + 1)
        number += block.breaks(0, len(block.data))
    return found


def test_line_numbers_hold_across_blocks() -> None:
    data = b"".join(b"line %d\n" % number for number in range(1, 400_001))
    data = data.replace(b"line 399999\n", b"HERE\n")
    for size in (997, BLOCK - 1, BLOCK, 3 * BLOCK):
        assert numbers([data[start : start + size] for start in range(0, len(data), size)], b"HERE") == [399_999]


def test_a_line_longer_than_a_block_is_cut_and_its_edges_overlap() -> None:
    line = b"x" * (BLOCK - 4) + b"CUDA out of memory" + b"y" * BLOCK
    pieces = list(blocks([b"one\n" + line + b"\nthree\n"]))
    assert sum(b"CUDA out of memory" in piece.data for piece in pieces) >= 1
    assert all(len(piece.data) <= 2 * BLOCK + OVERLAP for piece in pieces)
    assert numbers([b"one\n" + line + b"\nthree\n"], b"three") == [3]


@given(st.lists(st.binary(max_size=200), max_size=12))
def test_any_chunks_give_the_same_text(chunks: list[bytes]) -> None:
    whole = b"".join(chunks)
    assert b"".join(block.data for block in blocks(chunks)) == b"".join(block.data for block in blocks([whole]))


@given(st.text(alphabet="ab \r\n:é例", max_size=400))
def test_line_breaks_are_all_counted(text: str) -> None:
    data = text.encode()
    total = sum(block.breaks(0, len(block.data)) for block in blocks([data]))
    assert total == data.count(b"\n")


# --- wrapped pastes


def wrapped(text: str, width: int) -> str:
    return "\n".join(
        line[start : start + width] for line in text.split("\n") for start in range(0, len(line) or 1, width)
    )


LONG = (
    "[rank2]: AssertionError: no_sync context manager is incompatible with gradient partitioning logic of ZeRO stage 2"
)


def unwrapped(text: str) -> list[tuple[int, str]]:
    return unwrap(list(enumerate(text.split("\n"), 1)))


def test_a_paste_of_80_columns_is_put_together_again() -> None:
    assert unwrapped(wrapped(f"short\n{LONG}\nend", 80)) == [(1, "short"), (2, LONG), (4, "end")]


def test_rows_that_a_console_filled_with_blanks_are_not_joined() -> None:
    text = wrapped(f"short\n{LONG}\nend\nthe end", 80)
    filled = "\n".join(f"{line:<80}" for line in text.split("\n"))
    assert [line for _, line in unwrapped(filled)] == ["short", LONG, "end", "the end"]


def test_numbers_are_those_of_the_pasted_lines() -> None:
    text = wrapped(f"{LONG}\n{LONG}\nlast", 80)
    (block,) = blocks([text.encode()])
    assert 1 + block.breaks(0, block.data.find(b"last")) == text.split("\n").index("last") + 1


@pytest.mark.parametrize(
    "text",
    [
        "a\n" + "=" * 80 + "\ntrain.py FAILED\n" + "=" * 80 + "\n",
        "x" * 79 + "\nshort\n",
        "x y " * 20 + "\n" + "a longer line than that " * 20 + "\n",
        "",
    ],
)
def test_what_is_not_wrapped_stays(text: str) -> None:
    assert unwrapped(text) == list(enumerate(text.split("\n"), 1))


@given(st.lists(st.text(alphabet="abcdefgh =:[]", min_size=1, max_size=300), max_size=20))
def test_unwrapping_loses_nothing_but_line_breaks_and_the_blanks_that_fill_rows(lines: list[str]) -> None:
    text = wrapped("\n".join(lines), 80)
    joined = unwrapped(text)
    assert "".join(line for _, line in joined).replace(" ", "") == text.replace("\n", "").replace(" ", "")
    parts = text.split("\n")
    assert all(line.startswith(parts[number - 1].rstrip()) for number, line in joined)


def test_two_long_lines_of_one_length_are_no_wrapped_paste() -> None:
    said = "RuntimeError: Connection closed by peer [192.0.2.7]:30921. This is caused by a remote worker crashing. 🏖️"
    lines = [
        *(f"node0:{rank}| [rank{rank}]: {said}" for rank in (0, 1)),
        "node1:-| E1122 06:42:56.711000 189 torch/distributed/elastic/api.py:1002] failed (exitcode: 1) local_rank: 0",
    ]
    numbered = list(enumerate([lines[0], lines[2], lines[1], lines[2], "the end"], 1))
    assert unwrap(numbered) == numbered
