"""Copies to real hosts: what is there afterwards, what was not touched, what becomes of a copy that is disturbed."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.cluster.commands import WORK, Head
from tests.cluster.copying import Copying
from tests.cluster.host import ClusterHost
from tests.cluster.little_cluster import LittleCluster
from tests.cluster.processes import HostProcess

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


def thin(host: ClusterHost, rate: str) -> None:
    """Give a host's cable no more than this, outwards."""
    host.run(["tc", "qdisc", "add", "dev", host.nic, "root", "tbf", "rate", rate, "burst", "64k", "latency", "50ms"])


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


# --- file systems that are shared


def test_hosts_on_one_file_system_are_copied_to_once(copying: Copying, restored: LittleCluster) -> None:
    got = copying(hosts={"node0": "/shared/work", "node1": "/shared/work"})["got"]
    assert got["node0 code"][:2] == ["copied", "2 files copied, 15 B"]
    assert got["node1 code"][:2] == ["shares", "shares the folder of node0"]
    assert listing(restored["node1"], "/shared/work/code") == ["pkg/model.py", "train.py"]


def test_a_folder_that_the_head_shares_is_never_copied_onto_itself(copying: Copying, restored: LittleCluster) -> None:
    head = restored.head
    head.run(["cp", "-r", "/root/lab", "/shared/code"])
    before = head.run(["ls", "-lR", "--time-style=full-iso", "/shared/code"]).stdout
    works = {"hosts": {"node0": "/shared", "node1": "/root/work"}}
    for _ in range(2):
        got = copying(source="/shared/code", **works)["got"]
        assert got["node0 code"][:2] == ["shares", "works in this machine's own folder; nothing is copied"]
        assert got["node1 code"][0] in ("copied", "there")
        head.run(["touch", "/shared/code/.dsdoctor-sync"])  # as if it had been a copy once: --delete would be allowed
    head.run(["rm", "/shared/code/.dsdoctor-sync"])
    assert head.run(["ls", "-lR", "--time-style=full-iso", "/shared/code"]).stdout.replace("total", "") != ""
    assert listing(head, "/shared/code") == ["pkg/model.py", "train.py"]
    assert before.count(".py") == 2


@pytest.mark.parametrize(
    ("source", "work"), [("/shared/home", "/shared/home/work"), ("/shared/w/code/lab", "/shared/w")]
)
def test_trees_that_lie_in_each_other_are_refused(
    copying: Copying, restored: LittleCluster, source: str, work: str
) -> None:
    head = restored.head
    head.run(["mkdir", "-p", source])
    head.write(f"{source}/precious.py", "years of work")
    if source.startswith("/shared/w/"):
        head.run(["touch", "/shared/w/code/.dsdoctor-sync"])
    done = copying(source=source, hosts={"node0": work})
    assert "lie in each other" in done["error"]
    assert head.read(f"{source}/precious.py") == "years of work"


# --- folders that must not be changed


def test_a_foreign_folder_is_left_alone(copying: Copying, restored: LittleCluster) -> None:
    restored["node0"].write(f"{CODE}/thesis.tex", "years of work")
    done = copying()
    assert "node0: /root/work/code holds files that dsdoctor did not put there" in done["error"]
    assert listing(restored["node0"]) == ["thesis.tex"]
    assert listing(restored["node1"]) == ["pkg/model.py", "train.py"], "the others were finished"


def test_code_that_a_run_is_using_is_not_changed(copying: Copying, restored: LittleCluster) -> None:
    copying()
    node1 = restored["node1"]
    rank = node1.popen(["sleep", "300"], cwd=CODE, env={"OUT": "/root/work/runs/run-0/outputs"})
    assert copying()["got"]["node1 code"][1].startswith("unchanged, and used by run run-0 (process ")
    restored.head.write("/root/lab/train.py", "print(2)\n")
    refused = copying()
    assert "would change train.py under its feet" in refused["error"]
    assert node1.read(f"{CODE}/train.py") == "print(1)\n"
    rank.end()
    assert copying()["got"]["node1 code"][0] == "copied"


def test_two_at_once_wait_for_each_other(copying: Copying, restored: LittleCluster) -> None:
    big = ["dd", "if=/dev/urandom", "of=/root/lab/big.bin", "bs=1M", "count=8"]
    restored.head.run(big)
    thin(restored.head, "50mbit")
    first = copying.begin()
    restored["node0"].wait_for_start("rsync --server")
    second = copying.begin(hosts={"node1": "/root/work", "node0": "/root/work"})
    done = [copying.end(process) for process in (first, second)]
    assert done[0]["got"]["node0 code"][0] == "copied"
    assert done[1]["got"]["node0 code"][0] == "there"
    assert any(event["waiting"].startswith("dsdoctor sync from head") for event in done[1]["events"])


# --- disks


def test_a_full_disk_leaves_the_old_tree_whole_and_says_what_is_wanted(
    copying: Copying, restored: LittleCluster
) -> None:
    copying()
    node0 = restored["node0"]
    restored.head.write("/root/lab/train.py", "print(2)\n")
    restored.head.remove("/root/lab/pkg/model.py")
    restored.head.run(["dd", "if=/dev/urandom", "of=/root/lab/big.bin", "bs=1M", "count=8"])
    node0.fill_disk(free_mib=3)
    error = copying()["error"]
    assert "no space left for /root/work/code" in error
    assert "The code takes 8.4 MB in 3 files and folders; 3.1 MB and room for" in error
    assert node0.run(["find", CODE, "-size", "+1k"]).stdout == "", "what was put aside is gone"
    assert node0.read(f"{CODE}/train.py") == "print(1)\n", "the old tree"
    assert node0.read(f"{CODE}/pkg/model.py") == "x = 1\n"
    node0.free_disk()
    assert copying()["got"]["node0 code"][0] == "copied"
    assert listing(node0) == ["big.bin", "train.py"]


def test_a_read_only_folder_is_said(copying: Copying, restored: LittleCluster) -> None:
    node0 = restored["node0"]
    node0.run(["mkdir", "-p", "/root/work"])
    node0.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", "/root/work"])
    assert "Read-only file system" in copying()["error"]
    node0.run(["umount", "/root/work"])


def test_a_disk_without_room_for_more_files(copying: Copying, restored: LittleCluster) -> None:
    node0 = restored["node0"]
    node0.run(["mkdir", "-p", "/root/work"])
    node0.run(["mount", "-t", "tmpfs", "-o", "nr_inodes=10", "tmpfs", "/root/work"])
    for number in range(20):
        restored.head.write(f"/root/lab/pkg/{number}.py", "x")
    error = copying()["error"]
    assert "The code takes 35 B in 23 files and folders; " in error
    assert "room for" in error
    node0.run(["umount", "/root/work"])


# --- copies that are disturbed


def slow_copy(copying: Copying, cluster: LittleCluster, **order: Any) -> HostProcess:
    """A copy of some megabytes that is under way, over a thin cable."""
    cluster.head.run(["dd", "if=/dev/urandom", "of=/root/lab/big.bin", "bs=1M", "count=6"])
    thin(cluster.head, "10mbit")
    process = copying.begin(hosts={"node0": "/root/work"}, **order)
    cluster["node0"].wait_for_start("rsync --server")
    wait_until(lambda: bool(cluster["node0"].run(["find", CODE, "-size", "+100k"]).stdout), 15)
    return process


def wait_until(happens: Callable[[], bool], timeout: float) -> float:
    began = time.monotonic()
    while not happens():
        assert time.monotonic() - began < timeout, f"not within {timeout} s"
        time.sleep(0.05)
    return time.monotonic() - began


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_after_the_head_s_end_nothing_runs_on_and_the_next_sync_makes_it_whole(
    copying: Copying, restored: LittleCluster, number: int
) -> None:
    head, node0 = restored.head, restored["node0"]
    copying(hosts={"node0": "/root/work"})
    head.write("/root/lab/train.py", "print(2)\n")
    process = slow_copy(copying, restored)
    process.send_signal(number)
    assert wait_until(lambda: not node0.ps("rsync"), 10) < 10
    wait_until(lambda: not head.ps("rsync"), 10)
    assert node0.read(f"{CODE}/train.py") == "print(1)\n", "the old tree"
    head.run(["tc", "qdisc", "del", "dev", head.nic, "root"])
    got = copying(hosts={"node0": "/root/work"})["got"]
    assert got["node0 code"][0] == "copied"
    assert listing(node0) == ["big.bin", "pkg/model.py", "train.py"]
    assert not node0.ps("dsdoctor"), "the host's side of the sync is gone"


def test_a_host_that_loses_its_power_is_noticed_and_made_whole_later(copying: Copying, restored: LittleCluster) -> None:
    process = slow_copy(copying, restored, lifeline=4)
    began = time.monotonic()
    restored["node0"].poweroff()
    done = copying.end(process)
    assert time.monotonic() - began < 10
    assert done["error"].startswith("node0: ")
    restored["node0"].boot()
    restored.head.forget_neighbours()
    restored.head.run(["tc", "qdisc", "del", "dev", restored.head.nic, "root"])
    assert copying(hosts={"node0": "/root/work"})["got"]["node0 code"][0] == "copied"
    assert listing(restored["node0"]) == ["big.bin", "pkg/model.py", "train.py"]


def test_a_frozen_host_is_given_up_within_the_lifeline(copying: Copying, restored: LittleCluster) -> None:
    process = slow_copy(copying, restored, lifeline=4)
    began = time.monotonic()
    restored["node0"].freeze()
    done = copying.end(process)
    assert time.monotonic() - began < 12
    assert "nothing came for 4 s while copying" in done["error"]
    restored["node0"].thaw()


def test_a_file_that_grows_while_it_is_copied_is_copied_again_or_named(
    copying: Copying, restored: LittleCluster
) -> None:
    writer = restored.head.popen(["sh", "-c", "while :; do echo x >> /root/lab/growing.log; sleep 0.01; done"])
    restored.head.wait_for_start("growing.log")
    error = copying(hosts={"node0": "/root/work"})["error"]
    assert "differs from this machine's files after 3 attempts: growing.log" in error
    writer.end()
    assert copying(hosts={"node0": "/root/work"})["got"]["node0 code"][0] == "copied"


# --- what a tree may hold


def test_odd_names_and_kinds_of_files(copying: Copying, restored: LittleCluster) -> None:
    head, node0 = restored.head, restored["node0"]
    head.python(
        "import os, socket\n"
        "os.chdir('/root/lab')\n"
        "names = [b'-rf', b'two words', b'new\\nline', b'caf\\xe9', '中文'.encode(), b'$HOME', b'a:b', b'--delete']\n"
        "for name in names:\n"
        "    open(name, 'w').write('x')\n"
        "os.mkfifo('pipe')\n"
        "socket.socket(socket.AF_UNIX).bind('socket')\n"
        "os.link('train.py', 'hard.py')\n"
        "for to, name in [('/etc/hostname', 'outside'), ('/root/only-here', 'lost'), ('gone', 'dangling')]:\n"
        "    os.symlink(to, name)\n"
        "os.mkdir('/root/only-here')\n"
        "os.utime('train.py', (0, 0)); os.utime('pkg/model.py', (4e9, 4e9))\n"
    )
    got = copying(hosts={"node0": "/root/work"})["got"]["node0 code"]
    assert got[0] == "copied"
    assert "sockets, pipes and devices are not copied: pipe, socket" in got[2]
    assert [words for words in got[3:] if "lost is a link to /root/only-here" in words]
    assert not [words for words in got[2:] if "outside" in words or "dangling" in words]
    names = node0.python(f"import os; print(sorted(os.listdir(os.fsencode('{CODE}'))))").stdout
    for name in ("b'-rf'", "b'two words'", r"b'new\nline'", r"b'caf\xe9'", "b'$HOME'", "b'--delete'", "b'lost'"):
        assert name in names
    assert copying(hosts={"node0": "/root/work"})["got"]["node0 code"][:2] == ["there", "unchanged"]


def test_a_file_that_cannot_be_read_is_named(copying: Copying, restored: LittleCluster) -> None:
    restored.head.write("/root/lab/secret.key", "x", mode=0)
    dropped = "-dac_override,-dac_read_search"  # or root reads everything
    behind = ["setpriv", f"--bounding-set={dropped}", f"--inh-caps={dropped}"]
    error = copying(hosts={"node0": "/root/work"}, behind=behind)["error"]
    assert "/root/lab/secret.key cannot be read here (Permission denied (13))" in error
    assert "sync.exclude" in error


def test_what_is_excluded_stays_on_the_host(copying: Copying, restored: LittleCluster) -> None:
    copying(hosts={"node0": "/root/work"})
    restored["node0"].write(f"{CODE}/outputs/result.json", "{}")
    restored["node0"].write(f"{CODE}/pkg/outputs/other.json", "{}")
    copying(hosts={"node0": "/root/work"}, exclude=["/outputs/"])
    assert listing(restored["node0"]) == ["outputs/result.json", "pkg/model.py", "train.py"]


@pytest.mark.slow
def test_a_hundred_thousand_files(copying: Copying, restored: LittleCluster) -> None:
    restored.head.python(
        "import os\n"
        "for folder in range(200):\n"
        "    os.makedirs(f'/root/lab/d{folder}')\n"
        "    for number in range(500):\n"
        "        open(f'/root/lab/d{folder}/{number}', 'w').write('x')\n"
    )
    got = copying.end(copying.begin(hosts={"node0": "/root/work"}), timeout=110)["got"]
    assert got["node0 code"][1].startswith("100002 files copied")
    assert copying(hosts={"node0": "/root/work"})["got"]["node0 code"][:2] == ["there", "unchanged"]


# --- the command


def test_the_command_says_how_each_host_came_by_its_files(restored: LittleCluster) -> None:
    head = Head(restored)
    first = head.dsdoctor("sync", "job/trial.yaml", "--hostfile", "hostfile")
    assert first.returncode == 0, first.stderr
    lines = first.stdout.splitlines()
    assert [line.partition(": ")[0] for line in lines] == ["code is on node0", "code is on node1"]
    assert "code is on node0\n" in first.stderr
    again = head.dsdoctor("sync", "job/trial.yaml", "--hostfile", "hostfile")
    assert again.stdout == "code is on node0: unchanged\ncode is on node1: unchanged\n"
    no_python = ("sync", "job/trial.yaml", "--hostfile", "hostfile", "--python", "/no/such/python")
    assert head.dsdoctor(*no_python).stdout == again.stdout, "a shell and find are enough for that"
    restored["node1"].write("/root/.dsdoctor/work/trial/code/extra.py", "print()")
    refused = head.dsdoctor(*no_python)
    assert (refused.returncode, refused.stdout) == (3, "code is on node0: unchanged\n")
    assert "node1 is not reached and gets no copy: " in refused.stderr
    mended = head.dsdoctor("sync", "job/trial.yaml", "--hostfile", "hostfile")
    assert mended.stdout.startswith("code is on node0: unchanged\ncode is on node1: 0 files copied, 0 B, 1 deleted")
    assert not restored["node0"].exists("/root/.dsdoctor/work/trial/runs"), "it is for no run"
    dry = head.dsdoctor("sync", "job/trial.yaml", "--hostfile", "hostfile", "--dry-run")
    assert dry.returncode == 0
    assert "--- node1" in dry.stdout


def test_the_printed_lines_do_what_the_sync_does(restored: LittleCluster) -> None:
    head, node0 = Head(restored, {"node0": 1}), restored["node0"]
    dry = head.dsdoctor("sync", "job/trial.yaml", "--hostfile", "hostfile", "--dry-run")
    head.host.run(["bash", "-ec", dry.stdout], cwd="/root/lab")
    assert "trial.py" in listing(node0, "/root/.dsdoctor/work/trial/code")
    done = head.dsdoctor("sync", "job/trial.yaml", "--hostfile", "hostfile")
    assert done.stdout == "code is on node0: unchanged\n"


def test_a_host_that_is_down_does_not_keep_the_others_from_theirs(restored: LittleCluster) -> None:
    head = Head(restored)
    restored["node1"].poweroff()
    done = head.dsdoctor("sync", "job/trial.yaml", "--hostfile", "hostfile", "--timeout", "4")
    assert done.returncode == 3
    assert "node1 is not reached and gets no copy: " in done.stderr
    assert done.stdout.startswith("code is on node0: ")
    refused = head.dsdoctor("sync", "no_such_job")
    assert refused.returncode == 2


def test_told_to_end_while_it_waits_for_a_host_it_leaves_nothing(restored: LittleCluster) -> None:
    head = Head(restored)
    restored["node1"].mute()
    running = head.start("sync", "job/trial.yaml", "--hostfile", "hostfile")
    head.host.wait_for_start("ControlMaster=yes", timeout=60)
    running.send_signal(signal.SIGTERM)
    assert running.wait(timeout=60) == 130
    head.host.wait_for_end("ControlPath", timeout=30)


def test_a_copy_that_fails_is_exit_code_1(restored: LittleCluster) -> None:
    head = Head(restored)
    restored["node1"].write("/root/.dsdoctor/work/trial/code/thesis.tex", "years of work")
    done = head.dsdoctor("sync", "job/trial.yaml", "--hostfile", "hostfile")
    assert done.returncode == 1
    assert "holds files that dsdoctor did not put there" in done.stderr
    head.host.write("/root/lab/hostfile", f"node1 slots=1 python={sys.executable} workdir=/root/w\n")
    for in_the_way in ("touch /root/w", "rm /root/w; mkdir /root/w; ln -s /nowhere /root/w/code"):
        restored["node1"].run(["sh", "-c", in_the_way])
        done = head.dsdoctor("sync", "job/trial.yaml", "--hostfile", "hostfile")
        assert done.returncode == 1
        assert "node1: /root/w" in done.stderr
        assert "is in the way: a file, or a link that leads nowhere, where a folder is wanted" in done.stderr


@pytest.mark.slow
@pytest.mark.train
@pytest.mark.timeout(300)
def test_a_second_launch_with_other_code_does_not_change_that_of_the_first(restored: LittleCluster) -> None:
    head = Head(restored, {"node0": 1, "node1": 1})
    words = ("launch", "job/trial.yaml", "--hostfile", "hostfile", "--no-check")
    running = head.start(*words, "--set", "steps=100000", "--set", "pause=0.05")
    code = "/root/.dsdoctor/work/trial/code"
    node1 = restored["node1"]
    wait_until(lambda: bool(node1.ps("--stage first")), 90)
    before = node1.read(f"{code}/trial.py")
    head.host.write(f"{WORK}/job/trial.py", f"{before}\nprint('other')\n")
    second = head.dsdoctor(*words, "--fresh")
    assert second.returncode == 1
    assert "uses /root/.dsdoctor/work/trial/code" in second.stderr
    assert "would change trial.py under its feet" in second.stderr
    assert node1.read(f"{code}/trial.py") == before
    assert running.poll() is None
    running.send_signal(signal.SIGINT)
    running.communicate(timeout=60)
    wait_until(lambda: head.ranks() == [], 20)
    again = head.dsdoctor("sync", "job/trial.yaml", "--hostfile", "hostfile")
    assert again.returncode == 0, again.stderr
    assert "print('other')" in node1.read(f"{code}/trial.py")
