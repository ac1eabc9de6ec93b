"""Several little clusters at once, and what is left of one: nothing, however its owner ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cluster import footprint
from tests.cluster.host import ClusterHost
from tests.cluster.little_cluster import REPOSITORY, LittleCluster, hidden_directories
from tests.cluster.machine import HostDownError, HostSpec


def everyone(cluster: LittleCluster) -> tuple[ClusterHost, ...]:
    return (cluster.head, *cluster.hosts)


def traces(name: str) -> list[str]:
    """Everything outside that still has to do with a cluster: processes by control group, mounts, folders, groups."""
    processes = []
    for pid in Path("/proc").glob("[0-9]*"):
        try:
            if name in (pid / "cgroup").read_text():
                processes.append((pid / "cmdline").read_text())
        except (FileNotFoundError, ProcessLookupError):
            continue
    mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if name in line]
    places = [path for path in (footprint.Footprint(name).folder, footprint.Footprint(name).group) if path.exists()]
    return [*processes, *mounts, *map(str, places)]


def wait_until_gone(look: Callable[[], list[str]]) -> list[str]:
    deadline = time.monotonic() + 5
    while (left := look()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return left


def namespaces(name: str) -> set[str]:
    """Every namespace that a process is in or that is mounted somewhere, but for other clusters' own.

    (Numbers of namespaces are used again, so another cluster at the same time may have got ours.)
    """
    found = set()
    for pid in Path("/proc").glob("[0-9]*"):
        try:
            group = (pid / "cgroup").read_text()
            if footprint.PREFIX not in group or name in group:
                found |= {str((pid / "ns" / kind).readlink()) for kind in ("net", "mnt", "pid")}
        except OSError:
            continue
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    return found | {line.split()[3] for line in mounts if " - nsfs " in line}


def name_of(cluster: LittleCluster) -> str:
    return cluster.head.machine.group.parent.name.removeprefix(footprint.PREFIX)


def test_nothing_is_left_after_down(fresh_cluster: Callable[..., LittleCluster]) -> None:
    cluster = fresh_cluster(hosts=[HostSpec("node0", nic="bond0")])
    name = name_of(cluster)
    assert len(traces(name)) >= 5
    assert "02:77:00" not in subprocess.run(["ip", "link"], capture_output=True, text=True, check=True).stdout
    own = {
        str(Path(f"/proc/{host.pid1}/ns/{kind}").readlink())
        for host in everyone(cluster)
        for kind in ("net", "mnt", "pid")
    }
    assert own <= namespaces(name)
    cluster["node0"].popen(["sleep", "1238"])
    cluster["node0"].freeze()
    cluster.head.add_nic("ib0")
    cluster.down()
    assert traces(name) == []
    assert wait_until_gone(lambda: sorted(own & namespaces(name))) == []
    cluster.down()  # a second time does nothing


def test_nothing_is_left_when_a_host_does_not_boot(fresh_cluster: Callable[..., LittleCluster]) -> None:
    broken = HostSpec("node0", nic="bond0", files={"/etc/ssh/sshd_config": "NoSuchSetting yes\n"})
    cluster = LittleCluster([broken])
    own = f"{footprint.PREFIX}{os.getpid()}-*"
    before = set(Path("/run").glob(own))
    with pytest.raises(HostDownError, match=r"(?s)node0 did not boot.*NoSuchSetting"):
        cluster.up()
    assert set(Path("/run").glob(own)) == before
    with pytest.raises(KeyError):
        cluster["node0"]


def test_two_clusters_at_once_do_not_meet(
    two_hosts: LittleCluster, fresh_cluster: Callable[..., LittleCluster], tmp_path: Path
) -> None:
    other = fresh_cluster([HostSpec("node0", nic="ens3f0")], keep=[tmp_path])
    assert other.head.ssh("node0", "ls /sys/class/net").stdout.split() == ["ens3f0", "lo"]
    assert two_hosts.head.ssh("node0", "ls /sys/class/net").stdout.split() == ["bond0", "lo"]
    other["node0"].write("/shared/only-here", "")
    assert not two_hosts["node0"].exists("/shared/only-here")


def test_a_kept_folder_is_shown_and_not_written_to(fresh_cluster: Callable[..., LittleCluster], tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_text("weights")
    cluster = fresh_cluster([HostSpec("node0")], keep=[tmp_path])
    assert cluster["node0"].read(f"{tmp_path}/model.bin") == "weights"
    cluster["node0"].write(f"{tmp_path}/model.bin", "changed")
    assert cluster.head.read(f"{tmp_path}/model.bin") == "weights"
    assert (tmp_path / "model.bin").read_text() == "weights"


def test_directories_that_cannot_be_shown_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a,b").mkdir()
    for path in (tmp_path / "a,b", tmp_path / "missing"):
        with pytest.raises(ValueError, match="cannot be shown"):
            hidden_directories([path])
    assert hidden_directories([tmp_path, tmp_path / "a,b" / ".." / ".."]) == [tmp_path.parent]
    assert hidden_directories(["/usr"]) == []


OWNER = """
import sys, time
from tests.cluster.little_cluster import LittleCluster
from tests.cluster.machine import HostSpec
cluster = LittleCluster([HostSpec("node0")])
cluster.up()
if sys.argv[1] == "frozen":
    cluster["node0"].freeze()
print(cluster.head.machine.group.parent.name, flush=True)
time.sleep(100)
"""


@pytest.mark.parametrize("state", ["running", "frozen"])
def test_a_killed_owner_leaves_nothing_that_the_next_cluster_does_not_end(
    two_hosts: LittleCluster, fresh_cluster: Callable[..., LittleCluster], state: str
) -> None:
    owner = subprocess.Popen([sys.executable, "-c", OWNER, state], stdout=subprocess.PIPE, text=True, cwd=REPOSITORY)
    assert owner.stdout is not None
    with owner, owner.stdout:
        name = owner.stdout.readline().strip().removeprefix(footprint.PREFIX)
        footprint.erase_leftovers()
        assert len(traces(name)) >= 5, "a living owner's cluster must be left alone"
        owner.kill()
    assert owner.returncode == -signal.SIGKILL
    if state == "running":  # gone by itself: the lifeline broke
        assert wait_until_gone(lambda: [trace for trace in traces(name) if "init.sh" in trace or "sshd" in trace]) == []
    fresh_cluster([])
    assert [trace for trace in traces(name) if trace] == []  # but for zombies: orphans are for the machine's init
    assert two_hosts.head.ssh("node0", "hostname").stdout == "node0\n"
