"""The little cluster is what it says: separate hosts, real faults, nothing left afterwards."""

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
from tests.cluster.processes import CommandFailedError


def everyone(cluster: LittleCluster) -> tuple[ClusterHost, ...]:
    return (cluster.head, *cluster.hosts)


# --- what a host is


def test_hosts_have_their_own_name_and_nic(two_hosts: LittleCluster) -> None:
    seen = {
        host.name: (host.run(["hostname"]).stdout.strip(), host.run(["ls", "/sys/class/net"]).stdout.split())
        for host in everyone(two_hosts)
    }
    assert seen == {
        "head": ("head", ["eth0", "lo"]),
        "node0": ("node0", ["bond0", "lo"]),
        "node1": ("node1", ["eno1", "lo"]),
    }


def test_no_host_has_a_way_out_of_the_cluster(two_hosts: LittleCluster) -> None:
    for host in everyone(two_hosts):
        assert host.run(["ip", "route"]).stdout.startswith("10.77.0.0/24 dev")
        assert len(host.run(["ip", "route"]).stdout.splitlines()) == 1
    # 192.0.2.1 is of the block for documentation (RFC 5737): nobody's address
    lost = two_hosts.head.run(["ip", "route", "get", "192.0.2.1"], check=False)
    assert "Network is unreachable" in lost.stderr


def test_a_host_sees_its_own_processes_only(two_hosts: LittleCluster) -> None:
    sleeper = two_hosts["node0"].popen(["sleep", "1234"])
    try:
        assert [p.argv[-2:] for p in two_hosts["node0"].wait_for_start("sleep 1234")] == [("sleep", "1234")]
        assert two_hosts["node1"].ps("sleep 1234") == []
        shown = two_hosts["node0"].run(["ps", "-e", "-o", "pid=,args="]).stdout
        assert f"{sleeper.pid_inside} sleep 1234" in " ".join(shown.split())
        assert len(shown.splitlines()) < 6
    finally:
        sleeper.kill()
        assert sleeper.wait(5) == -signal.SIGKILL
        sleeper.end()


def test_orphans_are_reaped(two_hosts: LittleCluster) -> None:
    host = two_hosts["node0"]
    for _ in range(5):
        host.run(["sh", "-c", "(sleep 0.01 &) &"])
    deadline = time.monotonic() + 5
    while (left := [p for p in host.ps() if not p.argv or "sleep" in p.argv[0]]) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert left == []


def test_ssh_by_name_to_a_host_with_a_known_key(two_hosts: LittleCluster) -> None:
    assert two_hosts.head.ssh("node0", "hostname").stdout == "node0\n"
    assert two_hosts["node0"].ssh("node1", "hostname").stdout == "node1\n"


def test_an_unknown_host_key_is_refused(restored: LittleCluster) -> None:
    restored.head.remove("/root/.ssh/known_hosts")
    refused = restored.head.ssh("node0", "hostname", check=False)
    assert refused.returncode == 255
    assert "Host key verification failed" in refused.stderr


def test_nothing_of_the_machines_own_home_is_there(two_hosts: LittleCluster) -> None:
    seen = two_hosts["node0"].run(["find", "/root", "-maxdepth", "2", "-type", "f"]).stdout.split()
    assert {Path(path).parent for path in seen} <= {Path("/root/.ssh")}


def test_a_host_does_not_look_like_a_container(two_hosts: LittleCluster) -> None:
    assert not two_hosts["node0"].exists("/.dockerenv")
    assert not two_hosts["node0"].exists("/run/.containerenv")


def test_the_working_tree_and_its_interpreter_are_there(two_hosts: LittleCluster) -> None:
    shown = two_hosts["node1"].python("import msgspec, sys; print(sys.prefix, msgspec.__file__)").stdout.split()
    assert shown[0] == sys.prefix
    assert shown[1].startswith(sys.prefix)
    assert two_hosts["node1"].read(f"{REPOSITORY}/pyproject.toml") == (REPOSITORY / "pyproject.toml").read_text()


def test_what_a_host_writes_stays_on_it(restored: LittleCluster) -> None:
    node0, node1 = restored.hosts
    for path in (f"{REPOSITORY}/planted.txt", "/usr/lib/planted.txt", "/tmp/planted.txt", "/dev/shm/planted.txt"):
        node0.write(path, "node0")
        assert node0.read(path) == "node0"
        assert not node1.exists(path)
        assert not Path(path).exists()


def test_shared_is_one_folder_for_all(restored: LittleCluster) -> None:
    restored["node0"].write("/shared/results/row.txt", "from node0")
    assert restored["node1"].read("/shared/results/row.txt") == "from node0"
    assert restored.head.run(["stat", "-c", "%d:%i", "/shared/results/row.txt"]).stdout == (
        restored["node0"].run(["stat", "-c", "%d:%i", "/shared/results/row.txt"]).stdout
    )


def test_rsync_really_copies(restored: LittleCluster) -> None:
    restored.head.write("/root/job/train.py", "print('hello')\n")
    restored.head.run(["rsync", "-a", "/root/job/", "node0:/root/job/"])
    restored.head.write("/root/job/train.py", "changed on the head\n")
    assert restored["node0"].read("/root/job/train.py") == "print('hello')\n"
    assert not restored["node1"].exists("/root/job")


def test_reset_puts_everything_back(two_hosts: LittleCluster) -> None:
    node0, node1 = two_hosts.hosts
    node0.write("/etc/hosts", "127.0.1.1 node0\n")
    node0.write("/shared/left", "x")
    node0.cut()
    node1.add_nic("ib0", "192.0.2.7/24")
    node1.set_shm(64)
    node1.poweroff()
    two_hosts.head.mute()
    sleeper = node0.popen(["sleep", "1235"])
    node0.wait_for_start("sleep 1235")
    two_hosts.reset()
    assert sleeper.returncode == -signal.SIGKILL
    assert two_hosts.head.ssh("node0", "cat /etc/hosts; ls /shared").stdout == two_hosts.head.read("/etc/hosts")
    assert node1.run(["ls", "/sys/class/net"]).stdout.split() == ["eno1", "lo"]
    assert "size=8388608k" in node1.run(["grep", "/dev/shm", "/proc/mounts"]).stdout


# --- commands


def test_run_returns_outputs_and_takes_input_environment_and_folder(two_hosts: LittleCluster) -> None:
    script = 'cat; echo "$GIVEN $HOME"; pwd; echo to-stderr >&2'
    done = two_hosts["node0"].run(["bash", "-c", script], given="in\n", env={"GIVEN": "a b"}, cwd="/usr")
    assert (done.stdout, done.stderr) == ("in\na b /root\n/usr\n", "to-stderr\n")


def test_the_tests_own_environment_does_not_leak_in(two_hosts: LittleCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NCCL_FROM_OUTSIDE", "1")
    assert "FROM_OUTSIDE" not in two_hosts["node0"].run(["env"]).stdout


def test_a_failing_command_says_what_it_printed(two_hosts: LittleCluster) -> None:
    with pytest.raises(CommandFailedError, match=r"(?s)node0: .*ended with 3.*some output.*the reason"):
        two_hosts["node0"].run(["sh", "-c", "echo some output; echo the reason >&2; exit 3"])


def test_a_command_over_its_time_is_killed_with_its_children(two_hosts: LittleCluster) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        two_hosts["node0"].run(["sh", "-c", "sleep 4321 & sleep 4321"], timeout=0.3)
    two_hosts["node0"].wait_for_end("sleep 4321", timeout=5)


def test_signals_reach_the_process_inside(two_hosts: LittleCluster) -> None:
    code = "import signal, sys\nsignal.signal(2, lambda *a: sys.exit(130))\nprint('here', flush=True)\nsignal.pause()"
    process = two_hosts["node0"].popen([sys.executable, "-c", code])
    assert process.stdout is not None
    assert process.stdout.readline() == "here\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(5) == 130
    process.end()


def test_kill_by_the_id_inside(two_hosts: LittleCluster) -> None:
    process = two_hosts["node0"].popen(["sleep", "1236"])
    two_hosts["node0"].kill(process.pid_inside, signal.SIGTERM)
    assert process.wait(5) == -signal.SIGTERM
    process.end()


# --- what can befall a host


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


# --- several clusters, and what is left of one


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
