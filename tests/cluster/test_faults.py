"""What can befall a host of the little cluster is real, and can be undone."""

from __future__ import annotations

import signal
import subprocess
import time

import pytest

from tests.cluster.little_cluster import LittleCluster
from tests.cluster.machine import HostDownError


def test_cut(restored: LittleCluster) -> None:
    node0 = restored["node0"]
    node0.cut()
    assert node0.run(["cat", "/sys/class/net/bond0/carrier"]).stdout == "0\n"
    restored.head.forget_neighbours()
    cut_off = restored.head.run(["ssh", "-o", "ConnectTimeout=8", "node0", "true"], check=False)
    assert cut_off.returncode == 255
    assert "No route to host" in cut_off.stderr
    node0.heal()
    assert restored.head.ssh("node0", "hostname").stdout == "node0\n"


def test_mute(restored: LittleCluster) -> None:
    node0 = restored["node0"]
    node0.mute()
    assert node0.run(["cat", "/sys/class/net/bond0/carrier"]).stdout == "1\n"
    start = time.monotonic()
    muted = restored.head.run(["ssh", "-o", "ConnectTimeout=2", "node0", "true"], check=False)
    assert "Connection timed out" in muted.stderr
    assert 1.5 < time.monotonic() - start < 4
    node0.heal()
    assert restored.head.ssh("node0", "hostname").stdout == "node0\n"


def test_freeze(restored: LittleCluster) -> None:
    node0 = restored["node0"]
    node0.freeze()
    hanging = restored.head.run(["ssh", "-o", "ConnectTimeout=1", "node0", "true"], check=False)
    assert "timed out during banner exchange" in hanging.stderr
    with pytest.raises(subprocess.TimeoutExpired):
        node0.run(["true"], timeout=0.2)
    assert any("sshd" in process.argv[0] for process in node0.ps())
    node0.thaw()
    assert restored.head.ssh("node0", "hostname").stdout == "node0\n"


def test_poweroff_and_boot_keep_the_disk_and_lose_the_processes(restored: LittleCluster) -> None:
    node1 = restored["node1"]
    node1.write("/data/kept.txt", "kept")
    node1.write("/tmp/lost.txt", "lost")
    process = node1.popen(["sleep", "1237"])
    node1.wait_for_start("sleep 1237")
    node1.poweroff()
    assert process.returncode == -signal.SIGKILL
    assert not node1.is_up
    with pytest.raises(HostDownError, match="node1 is powered off"):
        node1.run(["true"])
    node1.poweroff()  # a second time does nothing
    restored.head.forget_neighbours()
    gone = restored.head.run(["ssh", "-o", "ConnectTimeout=8", "node1", "true"], check=False)
    assert "No route to host" in gone.stderr
    node1.boot()
    assert restored.head.ssh("node1", "cat /data/kept.txt").stdout == "kept"
    assert not node1.exists("/tmp/lost.txt")
    assert node1.ps("sleep 1237") == []


def test_a_frozen_host_can_be_powered_off(restored: LittleCluster) -> None:
    restored["node1"].freeze()
    restored["node1"].poweroff()
    restored["node1"].boot()
    assert restored.head.ssh("node1", "hostname").stdout == "node1\n"


def test_sshd_stopped_refuses_and_open_sessions_stay(restored: LittleCluster) -> None:
    session = restored.head.popen(["ssh", "node0", "echo open; sleep 60"])
    assert session.stdout is not None
    assert session.stdout.readline() == "open\n"
    restored["node0"].sshd_stop()
    refused = restored.head.ssh("node0", "true", check=False)
    assert "Connection refused" in refused.stderr
    assert session.poll() is None
    restored["node0"].sshd_start()
    assert restored.head.ssh("node0", "hostname").stdout == "node0\n"


def test_open_files_limit_of_ssh_sessions(restored: LittleCluster) -> None:
    before = int(restored.head.ssh("node0", "ulimit -Sn").stdout)
    restored["node0"].set_nofile(1024)
    assert before > 1024
    assert restored.head.ssh("node0", "ulimit -Sn; ulimit -Hn").stdout.split() == ["1024", str(before)]


def test_small_shm(restored: LittleCluster) -> None:
    restored["node0"].set_shm(64)
    size = "import os; s = os.statvfs('/dev/shm'); print(s.f_blocks * s.f_frsize >> 20)"
    assert restored["node0"].python(size).stdout == "64\n"


def test_full_disk(restored: LittleCluster) -> None:
    node0, node1 = restored.hosts
    node0.fill_disk()
    full = node0.run(["dd", "if=/dev/zero", "of=/root/big", "bs=1M", "count=2"], check=False)
    assert "No space left on device" in full.stderr
    node1.run(["dd", "if=/dev/zero", "of=/root/big", "bs=1M", "count=2"])
    node0.free_disk()
    node0.run(["dd", "if=/dev/zero", "of=/root/big", "bs=1M", "count=2"])


def test_another_nic(restored: LittleCluster) -> None:
    restored["node0"].add_nic("docker0", "172.17.0.1/16")
    restored["node0"].add_nic("ib0", up=False)
    shown = restored["node0"].run(["ip", "-o", "-4", "address", "show", "dev", "docker0"]).stdout
    assert "172.17.0.1/16" in shown
    assert restored["node0"].run(["cat", "/sys/class/net/ib0/operstate"]).stdout == "down\n"
    assert restored.head.ssh("node0", "hostname").stdout == "node0\n"
