"""Several large logs, read in as many processes as there are cores: the same scans as one after another."""

import gzip
import io
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from dsdoctor.logs.diagnose import conclude
from dsdoctor.logs.rules import RuleSet, load_rules
from dsdoctor.logs.scan import Scan
from dsdoctor.run import read_logs as module
from dsdoctor.run.read_logs import read_logs
from dsdoctor.yamlfile import FileError

RULES: RuleSet = load_rules()
HEALTHY = b"[rank%d]: {'loss': 1.0, 'learning_rate': 1e-05}\n"
CAUSE = b"[rank5]: torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB\n"


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    """Files of several sizes, one of them compressed, one an archive."""
    for number in range(5):
        (tmp_path / f"node{number}.log").write_bytes(HEALTHY % number * (100 * number + 1))
    (tmp_path / "node5.log.gz").write_bytes(gzip.compress(HEALTHY % 5 * 50 + CAUSE))
    with tarfile.open(tmp_path / "rest.tar", "w") as archive:
        for name in ("a.log", "b.log"):
            member = tarfile.TarInfo(name)
            member.size = len(HEALTHY)
            archive.addfile(member, io.BytesIO(HEALTHY))
    return tmp_path


@pytest.fixture
def in_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGE", 0)
    monkeypatch.setattr(module, "_cores", lambda: 2)


def names(scans: list[Scan]) -> list[str]:
    return [Path(scan.name).name for scan in scans]


@pytest.mark.usefixtures("in_processes")
def test_the_same_is_found_in_the_same_order(logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, int] = {}
    parallel = read_logs([logs], RULES, lambda name, size: seen.update({name: size}))
    monkeypatch.setattr(module, "_cores", lambda: 1)
    alone = read_logs([logs], RULES)
    assert names(parallel) == names(alone) == [*(f"node{n}.log" for n in range(5)), "node5.log.gz", "a.log", "b.log"]
    assert [scan.size for scan in parallel] == [scan.size for scan in alone]
    assert conclude(parallel, RULES) == conclude(alone, RULES)
    verdict = conclude(parallel, RULES).verdict
    assert verdict is not None and (verdict.cause, verdict.rank, verdict.line) == ("cuda-oom", 5, 51)
    assert set(seen) == {str(path) for path in logs.iterdir()}


@pytest.mark.usefixtures("in_processes")
def test_a_broken_file_is_named_and_the_others_are_read(logs: Path) -> None:
    (logs / "node6.log.gz").write_bytes(b"\x1f\x8b\x08\x00 this is no gzip")
    report = conclude(read_logs([logs], RULES), RULES)
    assert report.verdict is not None and report.verdict.cause == "cuda-oom"
    assert any("node6.log.gz is damaged" in note for note in report.notes)


@pytest.mark.usefixtures("in_processes")
def test_a_file_that_cannot_be_read_is_named(logs: Path) -> None:
    (logs / "node7.log").symlink_to("/proc/self/mem")  # opens, and cannot be read
    with pytest.raises(FileError, match=r"node7\.log: cannot be read") as caught:
        read_logs([*logs.glob("*.log")], RULES)
    assert caught.value.path == str(logs / "node7.log")


def test_small_logs_start_no_process(logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_in_processes", lambda *_: pytest.fail("a process for a few kilobytes"))
    assert len(read_logs([logs], RULES)) == 8


@pytest.mark.slow
def test_ctrl_c_ends_the_processes_too(tmp_path: Path) -> None:
    for number in range(4):
        with (tmp_path / f"node{number}.log").open("wb") as file:
            file.truncate(4 << 30)  # no bytes on the disk, but much to read
    argv = [sys.executable, "-m", "dsdoctor", "diagnose", str(tmp_path)]
    running = subprocess.Popen(argv, stderr=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
    children = Path(f"/proc/{running.pid}/task/{running.pid}/children")
    while running.poll() is None and len(children.read_text().split()) < 2:
        time.sleep(0.05)
    pids = children.read_text().split()
    assert pids
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=20)
    assert running.returncode == 130
    assert b"Traceback" not in said
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
