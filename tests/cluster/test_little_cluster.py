"""The little cluster is what it says: separate hosts, real faults, nothing left afterwards."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cluster.host import ClusterHost
from tests.cluster.little_cluster import REPOSITORY, LittleCluster
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
