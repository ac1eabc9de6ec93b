"""Files that are broken, huge or hostile: a clear word and the line, never a traceback, never a long wait."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsdoctor.checks import run_checks
from dsdoctor.jobs.job import ResolvedJob
from dsdoctor.jobs.load_any import kind_of, load_any, read_exactly
from dsdoctor.jobs.program import read_program
from dsdoctor.jobs.relaxed import parse_relaxed
from dsdoctor.jobs.script.read import read_script
from dsdoctor.jobs.script.resolve import resolve_script
from dsdoctor.yamlfile import FileError
from tests.jobs.reading import judged, read


def written(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.sh", b"python t.py\n--lr \xff1\n", "a.sh:2: not UTF-8 text (byte 17 is 0xff)"),
        ("a.sh", b"\x7fELF\0\0", "a.sh:1: binary: it holds a NUL byte"),
        ("a.sh", b"", "starts no training that can be seen"),
        ("a.sh", b"echo hello\n", "starts no training that can be seen"),
        ("a.json", b"", "the file is empty"),
        ("a.json", b"{", "the file ends in the middle"),
        ("a.json", b'{"a": 1, "a": 2}', "the key a is given twice"),
        ("a.py", b"def f(:\n", "a.py:1: not Python"),
        ("notes.txt", b"hello\n", "neither suffix nor content say what kind of file this is"),
        ("a.yaml", b"num_machines: [\n", "a.yaml"),
    ],
)
def test_what_cannot_be_read_is_said(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    with pytest.raises(FileError) as caught:
        load_any(str(written(tmp_path, name, data)))
    assert message in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="there is no"):
        load_any(str(tmp_path / "none.sh"))


@pytest.mark.parametrize("name", ["order_9.sh", "ds.json", "train.py"])
def test_a_file_of_no_folder_that_is_not_there_is_no_unknown_job(name: str) -> None:
    with pytest.raises(FileError, match=r"there is no such file$"):
        load_any(name)


def test_windows_line_ends_are_told_and_read_through(tmp_path: Path) -> None:
    path = written(tmp_path, "a.sh", b"#!/bin/bash\r\ntorchrun t.py \\\r\n  --lr 1e-3\r\n")
    assert load_any(str(path)).stages[0].args == {"lr": 1e-3}
    assert [finding.name for finding in judged(path).findings] == ["carriage-returns"]


def test_a_hundred_thousand_lines_are_read_or_refused_in_seconds() -> None:
    began = time.monotonic()
    with pytest.raises(FileError, match="more than 5000 commands"):
        read("echo a b c\n" * 100_000)
    comments = read("# nothing\n" * 100_000 + "python t.py --a 1\n")
    assert comments.calls[0].line == 100_001
    with pytest.raises(FileError, match="too many for a script"):
        read("x" * 5_000_000)
    assert time.monotonic() - began < 20


def test_values_that_double_and_nests_that_do_not_end() -> None:
    doubled = "x=aaaaaaaaaa\n" + "x=$x$x\n" * 200 + "python t.py $x\n"
    assert read(doubled).calls
    with pytest.raises(FileError, match="nested more than"):
        read("{ " * 300 + "python t.py;" + "}; " * 300)
    recursive = "f() { python t.py; f; f; }\nf\n"
    with pytest.raises(FileError, match="more than 5000 commands"):
        read(recursive.replace("; f; f", "; f; f; f; f"))
    with pytest.raises(FileError):
        read_program("x = " + "(" * 5000 + ")" * 5000, "t.py")


def test_the_grammar_is_not_given_characters_that_its_table_does_not_reach() -> None:
    """It reads memory behind its table for them: sometimes nothing happens, sometimes the process dies."""
    (call,) = read("python t.py \U0010fffd \U00030000 \U0001f680 \u4e2d --lr 1\n").calls
    assert [word.text for word in call.arguments] == ["\ufffd?", "\ufffd?", "\U0001f680", "\u4e2d", "--lr", "1"]
    assert [word.column for word in call.arguments] == [13, 18, 23, 28, 32, 37]


def resolved(text: str) -> ResolvedJob | None:
    try:
        return resolve_script(read_script(text, "job.sh"), ".", lambda name: None)
    except FileError:
        return None


TOKENS = (
    *("torchrun ", "deepspeed --include ", "python t.py ", "srun ", "--lr ", "-train_mode ", "1e-3 ", "$1 ", '"$@" '),
    *("\\\n", "\\ \n", "\n", "# c\\\n", "\r\n", "a=1\n", "export A=$b\n", "if x; then\n", "fi\n", "for i in 1 2; do\n"),
    *("done\n", "'", '"', "$(", ")", "${a:-", "}", "| tee x/l\n", "&& ", "&\n", "> o/l ", "#SBATCH -N 2\n", "cd x\n"),
    *(
        "set -e\n",
        "(",
        "((",
        "{ ",
        "–lr ",
        "rsync --exclude /a/b /a/b ",
        "chmod -R 766 ",
        "\x00",
        "é",
        "=",
        "--=",
        "--",
    ),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(TOKENS), max_size=25).map("".join))
def test_no_script_makes_reader_or_checks_fail(text: str) -> None:
    job = resolved(text)
    if job is not None:
        outcome = run_checks(None, job)
        assert not outcome.crashed, outcome.crashed[0].traceback


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=200))
def test_no_text_makes_a_reader_fail(text: str) -> None:
    resolved(text)
    kind_of("", text)
    for reader in (parse_relaxed, read_program):
        try:
            reader(text, "x")
        except FileError as error:
            assert str(error)


@settings(max_examples=50, deadline=None)
@given(data=st.binary(max_size=200))
def test_no_bytes_make_the_opener_fail(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = written(tmp_path_factory.mktemp("bytes"), "a.sh", data)
    try:
        assert read_exactly(path).encode() == data
    except FileError as error:
        assert "a.sh" in str(error)


def test_a_comment_in_another_encoding_is_no_hindrance(tmp_path: Path) -> None:
    script = tmp_path / "run.sh"
    script.write_bytes("# 训练\ndeepspeed train.py --lr 1e-3\n".encode("gbk"))
    (stage,) = load_any(str(script)).stages
    assert stage.args == {"lr": 1e-3}


def test_a_folder_is_said_to_be_one(tmp_path: Path) -> None:
    (tmp_path / "run.sh").mkdir()
    with pytest.raises(FileError, match="a folder; a file is wanted"):
        load_any(str(tmp_path / "run.sh"))


def test_a_config_that_is_too_deep_is_told_in_plain_words(tmp_path: Path) -> None:
    config = tmp_path / "ds.json"
    config.write_text('{"a":' * 5000 + "1" + "}" * 5000)
    with pytest.raises(FileError, match="nested more than 32 deep"):
        load_any(str(config))
