"""Opening logs: files, folders, standard input, compressed files and archives."""

import bz2
import gzip
import io
import lzma
import os
import random
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from dsdoctor.logs.diagnose import conclude, diagnose
from dsdoctor.logs.source import IncompleteError, NotTextError, not_text
from dsdoctor.report.model import Report
from dsdoctor.run.log_files import may_be_log, open_sources
from dsdoctor.run.read_logs import read_logs
from dsdoctor.yamlfile import FileError
from tests.logs.test_cases import RULES

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

TEXT = b"step 1\nRuntimeError: CUDA out of memory.\n"


def diagnosed(*paths: Path) -> Report:
    return conclude(read_logs(paths, RULES), RULES)


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
        zstd.compress(TEXT),
        gzip.compress(lzma.compress(TEXT)),
    ],
    ids=["plain", "gz", "two gz", "bz2", "xz", "zst", "xz in gz"],
)
def test_compressed_files_are_known_by_their_bytes(tmp_path: Path, packed: bytes) -> None:
    path = tmp_path / "train.log"
    path.write_bytes(packed)
    assert read(path) == {str(path): TEXT}


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    for given in (TEXT, gzip.compress(TEXT), zstd.compress(TEXT), b""):
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


def zipped(*members: tuple[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return file.getvalue()


def tarred(*members: tuple[str, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


MEMBERS = (("node1/rank0.log", TEXT), ("node2/rank1.log.gz", gzip.compress(TEXT)), ("model.pt", b"PK"), ("x/", b""))


@pytest.mark.parametrize(
    "packed",
    [
        zipped(*MEMBERS),
        tarred(*MEMBERS[:3]),
        zstd.compress(tarred(*MEMBERS[:3])),
        lzma.compress(zipped(*MEMBERS)),
        tarred(("logs.zip", zipped(*MEMBERS))),
        zipped(("logs.tar.gz", gzip.compress(tarred(*MEMBERS[:3])))),
    ],
    ids=["zip", "tar", "tar.zst", "zip.xz", "zip in tar", "tar.gz in zip"],
)
@pytest.mark.parametrize("piped", [False, True])
def test_archives_and_archives_in_archives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packed: bytes, piped: bool
) -> None:
    path = tmp_path / "download"
    path.write_bytes(packed)
    if piped:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(packed)))
    contents = read("-" if piped else path)
    assert list(contents.values()) == [TEXT, TEXT]
    assert next(iter(contents)).endswith("/node1/rank0.log")


def test_an_archive_in_itself_ends(tmp_path: Path) -> None:
    packed = TEXT
    for _ in range(50):
        packed = zipped(("log", packed))
    (tmp_path / "deep.zip").write_bytes(packed)
    with pytest.raises(NotTextError):
        read(tmp_path / "deep.zip")


LONG = b"".join(b"step %d loss 0.%d\n" % (number, number * 7919 % 100_003) for number in range(20_000))


@pytest.mark.parametrize(
    ("name", "packed"),
    [
        ("train.log.gz", gzip.compress(LONG)),
        ("train.log.xz", lzma.compress(LONG)),
        ("train.log.bz2", bz2.compress(LONG * 20)),  # its blocks are of 900 kB
        ("train.log.zst", zstd.compress(LONG)),
        ("train.tar", tarred(("train.log", LONG))),
        ("train.tar.gz", gzip.compress(tarred(("train.log", LONG)))),
        ("train.tar.zst", zstd.compress(tarred(("train.log", LONG)))),
        ("train.log.gz.gz", gzip.compress(gzip.compress(LONG))),
    ],
)
def test_what_is_cut_off_is_read_as_far_as_it_goes_and_said(tmp_path: Path, name: str, packed: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(packed[: len(packed) * 9 // 10])
    report = diagnosed(path)
    assert report.verdict is not None and (report.verdict.cause, report.verdict.confidence) == ("none", "possible")
    assert any("is cut off" in note and "what is there was read" in note for note in report.notes)
    got = bytearray()
    with pytest.raises(IncompleteError, match="is cut off"):
        for _, chunks in open_sources([path]):
            for chunk in chunks:
                got += chunk
    assert len(got) > len(LONG) // 2
    assert (LONG * 20).startswith(bytes(got))


def test_a_failure_in_what_is_left_is_found(tmp_path: Path) -> None:
    path = tmp_path / "train.log.gz"
    noise = random.Random(3).randbytes(30_000).hex().encode()
    path.write_bytes(gzip.compress(TEXT + noise)[:-2000])
    report = diagnosed(path)
    assert report.verdict is not None and (report.verdict.cause, report.verdict.line) == ("cuda-oom", 2)
    assert any("is cut off" in note for note in report.notes)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("broken.gz", gzip.compress(TEXT * 1000)[:20] + b"\xff" * 40, "is damaged|is cut off"),
        ("broken.xz", lzma.compress(TEXT)[:12] + b"\xff" * 40, "is damaged|is cut off"),
        ("broken.zst", bytes.fromhex("28b52ffd04580d0000") + b"x", "is damaged|is cut off"),
        ("bad-header.gz", b"\x1f\x8bnot gzip", "is damaged"),
        ("cut.zip", zipped(("a.log", TEXT))[:-30], "cannot be opened as the zip archive"),
        ("empty.zip", zipped(), "an archive without a log"),
        ("pictures.tar", tarred(("a.png", b"x")), "an archive without a log"),
        ("model.pt", zipped(("m/data.pkl", b"x"), ("m/version", b"3\n")), "is a PyTorch checkpoint and was left out"),
    ],
)
def test_a_file_of_which_nothing_can_be_read(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(IncompleteError, match=message):
        read(path)
    (tmp_path / "train.log").write_bytes(TEXT)
    report = diagnosed(path, tmp_path / "train.log")  # the others are read all the same
    assert report.verdict is not None and report.verdict.cause == "cuda-oom"
    assert any(name in note for note in report.notes)


def test_a_zip_archive_with_a_password_is_told(tmp_path: Path) -> None:
    packed = bytearray(zipped(("a.log", TEXT)))
    for mark, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        packed[packed.index(mark) + flags] |= 1  # says that it is encrypted
    (tmp_path / "logs.zip").write_bytes(packed)
    with pytest.raises(IncompleteError, match="password"):
        read(tmp_path / "logs.zip")


# --- what is no log


@pytest.mark.parametrize(
    ("head", "what"),
    [
        (Path(sys.executable).resolve().read_bytes()[:4096], "an ELF program, library or core dump"),
        (random.Random(1).randbytes(4096), "no text"),
        (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n" + random.Random(2).randbytes(2000), "a PDF"),
        (b"\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00}\x94." * 9, "a pickle"),
        (b"\x18\x00\x00\x00\x00\x00\x00\x00\xa3\x7fK\x22\x09\x00\x00\xc0\xa8brain.Event:2" * 9, "no text"),
    ],
)
def test_what_is_no_text(head: bytes, what: str) -> None:
    assert not_text(head) == what


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\x07",
        TEXT,
        b"\x00" * 100_000,
        b"\x00" * 4096 + TEXT,  # a log that was cut with copytruncate while it was written
        TEXT * 3 + b"\x00" * 3000,
        ("训练失败，请检查显存。" * 50).encode(),
        ("训练失败，请检查显存。" * 50).encode("gb18030"),
        ("训练失败，请检查显存。" * 50).encode("utf-16"),
        TEXT.decode().encode("utf-16-le"),
        TEXT.decode().encode("utf-16-be"),
        TEXT.decode().encode("utf-32"),
        b"\x1b[31m\x1b[0K\x08\x08\x07" * 100,
        b"\xff\xfe\x80\x81" * 50,
        b"caf\xe9 cr\xe8me\n" * 9,
    ],
)
def test_what_is_text(head: bytes) -> None:
    assert not_text(head) is None


def test_in_a_folder_what_is_no_text_is_left_out_and_said(tmp_path: Path) -> None:
    (tmp_path / "train.log").write_bytes(b"step 1\n")
    for name in ("core.1234", "core.99"):
        (tmp_path / name).write_bytes(b"\x7fELF" + bytes(range(32)) * 99)
    report = diagnosed(tmp_path)
    assert report.verdict is not None and (report.verdict.cause, report.verdict.confidence) == ("none", "likely")
    assert any("core.99 (and 1 more) is an ELF program" in note for note in report.notes)


def test_a_file_that_is_no_text_is_refused_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "events.out"
    path.write_bytes(random.Random(5).randbytes(9000))
    argv = [sys.executable, "-m", "dsdoctor", "diagnose", str(path)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"dsdoctor: {path}: is no text and was left out; wanted a log\n"


@pytest.mark.parametrize(
    ("name", "may"),
    [
        ("train.log", True),
        ("node1/stderr", True),
        ("attempt_0/1/error.json", True),
        ("downloaded-logs-20261122.json", True),
        ("logs_4711.zip", True),
        ("log-events-viewer-result.csv", True),
        ("train.ipynb", True),
        ("README.md", True),
        ("config.json", False),
        ("train.jsonl", False),
        ("dataset.zip", False),
        ("catalog.json", False),
        ("tokenizer/vocab.txt", False),
        ("files/requirements.txt", False),
        ("events.out.tfevents.1700000000.node1.7.0", False),
        ("__MACOSX/._train.log", False),
        (".git/config", False),
        ("./train.log", True),
    ],
)
def test_names_of_logs(name: str, may: bool) -> None:
    assert may_be_log(name) is may


def test_a_log_that_is_linked_twice_is_read_once(tmp_path: Path) -> None:
    (tmp_path / "run-1").mkdir()
    (tmp_path / "run-1" / "debug.log").write_bytes(TEXT)
    (tmp_path / "debug.log").symlink_to(tmp_path / "run-1" / "debug.log")
    os.link(tmp_path / "run-1" / "debug.log", tmp_path / "same.log")
    assert len(read(tmp_path)) == 1


def test_a_pipe_is_read_like_a_file(tmp_path: Path) -> None:
    (tmp_path / "train.log").write_bytes(TEXT)
    command = f"{sys.executable} -m dsdoctor diagnose <(gzip -c {tmp_path}/train.log)"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.stdout.startswith("✗ cuda-oom")


@pytest.mark.parametrize(("path", "message"), [("nothing.log", "no such file"), ("folder", "no log in this folder")])
def test_what_is_not_there(tmp_path: Path, path: str, message: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(FileError, match=message):
        read(tmp_path / path)


def test_a_folder_that_links_to_itself_ends(tmp_path: Path) -> None:
    (tmp_path / "train.log").write_bytes(TEXT)
    (tmp_path / "again").symlink_to(tmp_path)
    assert len(read(tmp_path)) == 1
