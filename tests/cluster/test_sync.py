"""Copies to real hosts: what is there afterwards, what was not touched, what becomes of a copy that is disturbed."""

from __future__ import annotations

import pytest

from tests.cluster.copying import Copying
from tests.cluster.host import ClusterHost
from tests.cluster.little_cluster import LittleCluster

CODE = "/root/work/code"


@pytest.fixture
def copying(restored: LittleCluster) -> Copying:
    head = restored.head
    head.write("/root/lab/train.py", "print(1)\n")
    head.write("/root/lab/pkg/model.py", "x = 1\n")
    return Copying(head, "node0", "node1")


def listing(host: ClusterHost, folder: str = CODE) -> list[str]:
    """Every file below a folder but dsdoctor's own."""
    found = host.run(["find", folder, "-type", "f", "-printf", "%P\\n"]).stdout.splitlines()
    return sorted(name for name in found if ".dsdoctor" not in name)


def own_files(host: ClusterHost) -> list[str]:
    """What of dsdoctor's own files is left in the work folder."""
    return sorted(host.run(["find", "/root/work", "-name", ".dsdoctor*", "-printf", "%P\\n"]).stdout.split())


def test_the_code_is_copied_then_unchanged_then_made_equal(copying: Copying, restored: LittleCluster) -> None:
    first = copying()
    assert first["got"]["node0 code"][:2] == ["copied", "2 files copied, 15 B"], first
    for host in restored.hosts:
        assert listing(host) == ["pkg/model.py", "train.py"]
        assert own_files(host) == [".dsdoctor-lock", "code/.dsdoctor-sync"]
    assert copying()["got"]["node1 code"][:2] == ["there", "unchanged"]
    restored.head.write("/root/lab/train.py", "print(2)\n")
    restored.head.remove("/root/lab/pkg/model.py")
    restored.head.run(["ln", "-s", "train.py", "/root/lab/link.py"])
    assert copying()["got"]["node0 code"][:2] == ["copied", "1 file copied, 9 B, 1 deleted"]
    assert restored["node1"].read(f"{CODE}/link.py") == "print(2)\n"
    assert listing(restored["node0"]) == ["train.py"]
