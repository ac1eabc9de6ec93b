"""Errors of NVIDIA's driver in the kernel's log, read from /dev/kmsg, the journal or dmesg, whichever is open."""

from __future__ import annotations

from pathlib import Path

import pytest

from dsdoctor.hosts import probe
from tests.probe.conftest import lay

ASK = probe.question.Ask({})
RECORDS = (
    "6,1,0,-;Linux version 6.8.0\n"
    "3,900,4000000000,-;NVRM: Xid (PCI:0000:3b:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.\n"
    " SUBSYSTEM=pci\n DEVICE=+pci:0000:3b:00.0\n"
    "3,901,4500000000,-;NVRM: Xid (PCI:0000:3B:00): 31, pid=4711, name=python, Ch 00000010, intr 00000000\n"
    "3,902,4900000000,-;NVRM: Xid (PCI:0000:3b:00): 31, pid=4712, name=secret-project, Ch 00000020, intr 00000000\n"
    "3,903,4910000000,-;NVRM: Xid (0000:5e:00.0): 48, An uncorrectable double bit error (DBE) has been detected\n"
    "3,904,4920000000,-;NVRM: Xid (PCI:0000:5e:00): 45\n"
    "4,905,4930000000,-;usb 1-1: a line about Xid (PCI:0000:3b:00): 62 that the driver did not write\n"
)


def programs(folder: Path, monkeypatch: pytest.MonkeyPatch, **scripts: str) -> None:
    """Only these programs are on the PATH."""
    lay(folder, {name: f"#!/bin/sh\n{text}\n" for name, text in scripts.items()})
    for name in scripts:
        (folder / name).chmod(0o755)
    folder.mkdir(exist_ok=True)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(probe.kernel_log, "SBIN", ())
    monkeypatch.setattr(probe.programs, "HANGING", set())
    found = probe.files.which
    monkeypatch.setattr(probe.kernel_log, "which", lambda name, extra=(): found(name))


def test_the_numbers_the_cards_and_the_last_time(root: Path) -> None:
    lay(root, {"dev/kmsg": RECORDS, "proc/uptime": "5000.00 1.0\n"})
    found = probe.kernel_log.fact_kernel_log(ASK)
    assert (found["source"], found["since_seconds"]) == ("/dev/kmsg", 5000.0)
    assert [(row["address"], row["code"], row["count"], row["last_seconds_ago"]) for row in found["xids"]] == [
        ("0000:3b:00", 79, 1, 1000.0),
        ("0000:3b:00", 31, 2, 100.0),
        ("0000:5e:00.0", 48, 1, 90.0),
        ("0000:5e:00", 45, 1, 80.0),
    ]
    texts = [row["text"] for row in found["xids"]]
    assert texts[0] == "GPU has fallen off the bus."
    assert texts[1] == "Ch 00000020, intr 00000000"  # neither process nor program
    assert texts[3] == ""


def test_a_log_without_any(root: Path) -> None:
    lay(root, {"dev/kmsg": RECORDS.split("\n")[0], "proc/uptime": "5000.00 1.0\n"})
    assert probe.kernel_log.fact_kernel_log(ASK) == {
        "source": "/dev/kmsg",
        "detail": "",
        "xids": [],
        "since_seconds": 5000.0,
    }


def test_any_bytes_and_a_flood(root: Path) -> None:
    flood = b"".join(b"3,%d,%d000000,-;NVRM: Xid (PCI:0000:3b:00): 13, \xff\x1b[2J\n" % (i, i) for i in range(20000))
    lay(root, {"dev/kmsg": b"\xff\xfe;;\n" + flood, "proc/uptime": "20000.00 1.0\n"})
    (row,) = probe.kernel_log.fact_kernel_log(ASK)["xids"]
    assert (row["count"], row["last_seconds_ago"]) == (20000, 1.0)


JOURNAL = """
case "$*" in
  *--lines=1*) echo '[ 4990.000001] some host kernel: nothing special' ;;
  *--grep*) echo '[ 4000.500000] gpu-a kernel: NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus.' ;;
esac"""


def test_the_journal_where_the_log_itself_is_closed(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay(root, {"proc/uptime": "5000.00 1.0\n"})
    programs(tmp_path / "bin", monkeypatch, journalctl=JOURNAL)
    found = probe.kernel_log.fact_kernel_log(ASK)
    assert (found["source"], found["since_seconds"]) == ("journalctl", None)
    (row,) = found["xids"]
    assert (row["code"], row["last_seconds_ago"], row["text"]) == (79, 999.5, "GPU has fallen off the bus.")


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("exit 0", "it shows this user no kernel message"),
        ('echo "No journal files were opened due to insufficient permissions." >&2; exit 1', "no kernel message"),
        (JOURNAL.replace("*--grep*)", "*--grep*) echo 'unrecognized option' >&2; exit 1;; no)"), "unrecognized option"),
        ("exec sleep 30", "did not end"),
    ],
)
def test_a_log_that_nobody_lets_us_read(
    script: str, said: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(probe.programs.PATIENCE, "program", 0.5)
    programs(tmp_path / "bin", monkeypatch, journalctl=script.replace("sleep", "/bin/sleep"))
    found = probe.kernel_log.fact_kernel_log(ASK)
    assert (found["source"], found["xids"], found["since_seconds"]) == ("", [], None)
    assert "/dev/kmsg: No such file or directory" in found["detail"]
    assert said in found["detail"]
    assert "dmesg: there is none" in found["detail"]


def test_dmesg_comes_last(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "[    0.000000] Linux\\n[ 4000.000000] NVRM: Xid (PCI:0000:3b:00): 119, pid=1, name=x, Timeout after 6s"
    programs(tmp_path / "bin", monkeypatch, dmesg=f"printf '{text}'")
    lay(root, {"proc/uptime": "5000.00 1.0\n"})
    found = probe.kernel_log.fact_kernel_log(ASK)
    assert (found["source"], found["since_seconds"]) == ("dmesg", 5000.0)
    assert found["xids"][0]["text"] == "Timeout after 6s"
    programs(
        tmp_path / "bin",
        monkeypatch,
        dmesg="echo 'dmesg: read kernel buffer failed: Operation not permitted' >&2; exit 1",
    )
    assert probe.kernel_log.fact_kernel_log(ASK)["source"] == ""
