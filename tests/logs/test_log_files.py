"""Opening logs: files, folders, standard input, compressed files and archives."""

import bz2
import gzip
import io
import lzma
import sys
import tarfile
from pathlib import Path

import pytest

from dsdoctor.logs.diagnose import diagnose
from dsdoctor.run.log_files import open_sources
from dsdoctor.yamlfile import FileError

TEXT = b"step 1\nRuntimeError: CUDA out of memory.\n"


def read(*paths: Path | str) -> dict[str, bytes]:
    return {name: b"".join(chunks) for name, chunks in open_sources(paths)}


@pytest.mark.parametrize(
    "packed",
    [
        TEXT,
        gzip.compress(TEXT),
        gzip.compress(TEXT[:9]) + gzip.compress(TEXT[9:]),
        bz2.compress(TEXT),
        lzma.compress(TEXT),
    ],
    ids=["plain", "gz", "two gz", "bz2", "xz"],
)
def test_compressed_files_are_known_by_their_bytes(tmp_path: Path, packed: bytes) -> None:
    path = tmp_path / "train.log"
    path.write_bytes(packed)
    assert read(path) == {str(path): TEXT}


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    for given in (TEXT, gzip.compress(TEXT), b""):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given)))
        assert read("-") == {"stdin": TEXT if given else b""}


def test_a_folder_gives_its_logs_in_order(tmp_path: Path) -> None:
    for name in ("node1/rank10.log", "node1/rank9.log", "node2/rank2.log", "slurm-12.out", "stderr"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(TEXT)
    for name in ("merged.log", "plan.json", "model.safetensors", ".hidden.log", "train.py", "empty.log"):
        (tmp_path / name).write_bytes(b"" if name == "empty.log" else b"CUDA out of memory")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "x.log").write_bytes(TEXT)
    assert [name.removeprefix(f"{tmp_path}/") for name in read(tmp_path)] == [
        "node1/rank9.log",
        "node1/rank10.log",
        "node2/rank2.log",
        "slurm-12.out",
        "stderr",
    ]


def test_a_merged_log_is_read_where_there_are_no_files_of_ranks(tmp_path: Path) -> None:
    (tmp_path / "merged.log").write_bytes(TEXT)
    assert len(read(tmp_path)) == 1


def test_host_and_rank_of_a_run_folder_reach_the_verdict(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "train" / "node2" / "rank3.log"
    path.parent.mkdir(parents=True)
    path.write_bytes(TEXT)
    verdict = diagnose(open_sources([tmp_path])).verdict
    assert verdict is not None
    assert (verdict.cause, verdict.host, verdict.rank, verdict.line) == ("cuda-oom", "node2", 3, 2)


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
def test_members_of_an_archive_are_logs_of_their_own(tmp_path: Path, mode: str) -> None:
    (tmp_path / "rank0.log").write_bytes(TEXT)
    (tmp_path / "weights.bin").write_bytes(b"\x00" * 1000)
    archive = tmp_path / "logs.tar"
    with tarfile.open(archive, mode) as tar:  # type: ignore[call-overload]
        tar.add(tmp_path / "rank0.log", "node1/rank0.log")
        tar.add(tmp_path / "weights.bin", "weights.bin")
    assert read(archive) == {f"{archive}/node1/rank0.log": TEXT}


def test_a_compressed_log_that_is_still_written_ends_where_it_ends(tmp_path: Path) -> None:
    path = tmp_path / "train.log.gz"
    path.write_bytes(gzip.compress(TEXT * 10_000)[:-30])
    text = read(path)[str(path)]
    assert text and (TEXT * 10_000).startswith(text)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("broken.gz", gzip.compress(TEXT * 1000)[:20] + b"\xff" * 40, "cannot be"),
        ("broken.xz", lzma.compress(TEXT)[:12] + b"\xff" * 40, "cannot be"),
        ("bad-header.gz", b"\x1f\x8bnot gzip", "cannot be"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(FileError, match=message) as refused:
        read(path)
    assert str(path) in str(refused.value)


def test_zstd_is_read_or_says_what_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "train.log.zst"
    path.write_bytes(bytes.fromhex("28b52ffd04580d0000") + b"x")
    with pytest.raises(FileError) as refused:
        read(path)
    assert str(path) in str(refused.value)


@pytest.mark.parametrize(("path", "message"), [("nothing.log", "no such file"), ("folder", "no log in this folder")])
def test_what_is_not_there(tmp_path: Path, path: str, message: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(FileError, match=message):
        read(tmp_path / path)


def test_a_folder_that_links_to_itself_ends(tmp_path: Path) -> None:
    (tmp_path / "train.log").write_bytes(TEXT)
    (tmp_path / "again").symlink_to(tmp_path)
    assert len(read(tmp_path)) == 1
