"""Data and models on real hosts: copied where they are not whole, resumed, never deleted, never over somebody's own."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.cluster.commands import Head
from tests.cluster.copying import Copying
from tests.cluster.host import ClusterHost
from tests.cluster.little_cluster import LittleCluster
from tests.cluster.machine import HostSpec

DATA = "/root/work/data/set"


@pytest.fixture
def copying(restored: LittleCluster) -> Copying:
    head = restored.head
    head.write("/root/lab/train.py", "print(1)\n")
    for name in ("a.jsonl", "b.jsonl"):
        head.write(f"/sets/set/{name}", f"{name}\n" * 100)
    return Copying(head, "node0")


def tree(source: str = "/sets/set", *, same: bool = False, file: bool = False, **places: str) -> dict[str, Any]:
    return {"kind": "data", "source": source, "file": file, "same": same, "places": places or {"node0": DATA}}


def files(host: ClusterHost, folder: str = DATA) -> list[str]:
    return sorted(host.run(["find", "-L", folder, "-type", "f", "-printf", "%P\\n"]).stdout.split())


def thin(host: ClusterHost, rate: str) -> None:
    host.run(["tc", "qdisc", "add", "dev", host.nic, "root", "tbf", "rate", rate, "burst", "64k", "latency", "50ms"])


def test_what_is_lacking_is_copied_and_what_is_there_is_not(copying: Copying, restored: LittleCluster) -> None:
    node0 = restored["node0"]
    assert copying(trees=[tree()])["got"]["node0 data"][:2] == ["copied", "2 files copied, 1.6 kB"]
    assert copying(trees=[tree()])["got"]["node0 data"][:2] == ["there", f"{DATA} is whole"]
    restored.head.write("/sets/set/c.jsonl", "c")
    restored.head.remove("/sets/set/a.jsonl")
    got = copying(trees=[tree()])["got"]["node0 data"]
    assert got[:2] == ["copied", "1 file copied, 1 B"]
    assert "1 file in /root/work/data/set that is not here (a.jsonl)" in got[2]
    assert files(node0) == ["a.jsonl", "b.jsonl", "c.jsonl"], "nothing is ever deleted"
    left = node0.run(["find", "/root/work", "-name", ".dsdoctor-t*"]).stdout
    assert left == ""


def test_a_single_file_keeps_its_name(copying: Copying, restored: LittleCluster) -> None:
    restored.head.run(["ln", "-s", "/sets/set/a.jsonl", "/sets/best.jsonl"])
    one = tree("/sets/best.jsonl", file=True, node0="/root/work/data/best.jsonl")
    assert copying(trees=[one])["got"]["node0 data"][0] == "copied"
    assert restored["node0"].read("/root/work/data/best.jsonl") == "a.jsonl\n" * 100
    assert copying(trees=[one])["got"]["node0 data"][0] == "there"


def test_a_host_that_has_it_under_its_path_here_gets_a_link(copying: Copying, restored: LittleCluster) -> None:
    node0 = restored["node0"]
    restored.head.run(["rsync", "-a", "/sets", "node0:/"])
    assert copying(trees=[tree()])["got"]["node0 data"][:2] == ["there", "/sets/set is whole"]
    assert node0.run(["readlink", DATA]).stdout.strip() == "/sets/set"
    restored.head.write("/sets/set/c.jsonl", "c")
    assert copying(trees=[tree()])["got"]["node0 data"][0] == "copied", "that copy is not whole any more"
    assert files(node0) == ["a.jsonl", "b.jsonl", "c.jsonl"]
    assert files(node0, "/sets/set") == ["a.jsonl", "b.jsonl"], "and is not dsdoctor's to change"


def test_a_folder_that_this_machine_shares_is_not_copied(copying: Copying, restored: LittleCluster) -> None:
    restored.head.run(["cp", "-r", "/sets/set", "/shared/set"])
    shared = tree("/shared/set", same=True, node0="/shared/set")
    got = copying(trees=[shared])["got"]["node0 data"]
    assert got[:2] == ["shares", "sees this machine's own /shared/set; nothing is copied"]


def sent(host: ClusterHost) -> int:
    return int(host.read(f"/sys/class/net/{host.nic}/statistics/tx_bytes"))


def test_a_copy_would_not_be_put_into_its_own_source(copying: Copying, restored: LittleCluster) -> None:
    head = restored.head
    head.run(["cp", "-r", "/sets/set", "/shared/set"])
    head.run(["mkdir", "/nfs"])
    head.run(["mount", "--bind", "/shared", "/nfs"])  # the host has it under another path
    inside = tree("/nfs/set", node0="/shared/set/work/data/set")
    refused = copying(trees=[inside], hosts={"node0": "/shared/set/work"})
    assert "/shared/set/work/data/set lies in /nfs/set itself" in refused["error"]
    assert not head.exists("/shared/set/work/data/set")


def test_somebody_s_own_files_under_the_same_path_are_not_overwritten(
    copying: Copying, restored: LittleCluster
) -> None:
    node0 = restored["node0"]
    own = tree(same=True, node0="/sets/set")
    node0.write("/sets/set/a.jsonl", "a.jsonl\n" * 100)
    node0.run(["touch", "-d", "2020-01-01", "/sets/set/a.jsonl"])  # the same, of another time
    node0.write("/sets/set/mine.txt", "years of work")
    got = copying(trees=[own])["got"]["node0 data"]
    assert got[:2] == ["copied", "1 file copied, 800 B"], "b.jsonl"
    node0.write("/sets/set/a.jsonl", "A.JSONL\n" * 100)
    node0.run(["touch", "-d", "2020-01-02", "/sets/set/a.jsonl"])
    error = copying(trees=[own])["error"]
    assert "/sets/set has other contents than /sets/set here (a.jsonl)" in error
    assert node0.read("/sets/set/a.jsonl") == "A.JSONL\n" * 100
    assert node0.read("/sets/set/mine.txt") == "years of work"


def test_links_of_the_hub_s_cache_are_followed(copying: Copying, restored: LittleCluster) -> None:
    restored.head.write("/hub/blobs/123", "weights")
    restored.head.run(["mkdir", "-p", "/hub/snapshots/main"])
    restored.head.run(["ln", "-s", "../../blobs/123", "/hub/snapshots/main/model.safetensors"])
    model = {**tree("/hub/snapshots/main", node0="/root/work/model/main"), "kind": "model"}
    assert copying(trees=[model])["got"]["node0 model"][0] == "copied"
    assert restored["node0"].read("/root/work/model/main/model.safetensors") == "weights"
    assert copying(trees=[model])["got"]["node0 model"][0] == "there"


def test_a_big_file_goes_on_where_it_was_interrupted(copying: Copying, restored: LittleCluster) -> None:
    head, node0 = restored.head, restored["node0"]
    head.run(["dd", "if=/dev/urandom", "of=/sets/set/big.bin", "bs=1M", "count=24"])
    thin(head, "20mbit")
    process = copying.begin(trees=[tree()])
    deadline = time.monotonic() + 20
    while not node0.run(["find", "/root/work", "-size", "+4M"], check=False).stdout:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    partial = f"{DATA}/.dsdoctor-partial/big.bin"
    kept = int(node0.run(["stat", "-c", "%s", partial]).stdout)
    assert kept > 3_000_000
    assert not node0.exists(f"{DATA}/big.bin"), "nothing half done under its own name"
    before = sent(head)
    assert copying(trees=[tree()])["got"]["node0 data"][0] == "copied"
    assert sent(head) - before < 24 * 1024 * 1024 - kept // 2, "what was there is not sent once more"
    assert node0.run(["md5sum", f"{DATA}/big.bin"]).stdout[:32] == head.run(["md5sum", "/sets/set/big.bin"]).stdout[:32]
    assert not node0.exists(partial)


def test_without_room_nothing_is_begun(copying: Copying, restored: LittleCluster) -> None:
    node0 = restored["node0"]
    restored.head.run(["dd", "if=/dev/zero", "of=/sets/set/big.bin", "bs=1M", "count=8"])
    node0.fill_disk(free_mib=3)
    error = copying(trees=[tree()])["error"]
    assert "sync.data: 8.4 MB in 3 files are to be copied, and 3.1 MB and room for" in error
    assert "Nothing was copied" in error
    assert not node0.exists(f"{DATA}/a.jsonl")
    node0.free_disk()
    assert copying(trees=[tree()])["got"]["node0 data"][0] == "copied"


# --- handed on by hosts that are done


@pytest.fixture
def five(fresh_cluster: Callable[..., LittleCluster]) -> LittleCluster:
    cluster = fresh_cluster([HostSpec(f"node{number}", nic="eth0") for number in range(5)])
    cluster.head.write("/root/lab/train.py", "print(1)\n")
    cluster.head.run(["mkdir", "-p", "/sets/set"])
    cluster.head.run(["dd", "if=/dev/urandom", "of=/sets/set/big.bin", "bs=1M", "count=10"])
    return cluster


def spread(cluster: LittleCluster, **changes: Any) -> tuple[dict[str, Any], float]:
    names = [host.name for host in cluster.hosts]
    copying, places = Copying(cluster.head, *names), dict.fromkeys(names, DATA)
    copying(trees=[])  # the code, and the connections' first use
    thin(cluster.head, "20mbit")
    began = time.monotonic()
    done = copying(trees=[tree(**places)], relay_from=1 << 20, **changes)
    return done, time.monotonic() - began


def test_behind_a_thin_cable_hosts_that_are_done_hand_it_on(five: LittleCluster) -> None:
    done, seconds = spread(five)
    handed = [words[1] for key, words in done["got"].items() if key.endswith("data") and "handed on by" in words[1]]
    assert len(handed) >= 2, done
    wanted = five.head.run(["md5sum", "/sets/set/big.bin"]).stdout[:32]
    for host in five.hosts:
        assert host.run(["md5sum", f"{DATA}/big.bin"]).stdout[:32] == wanted
        assert files(host) == ["big.bin"]
    assert seconds < 17, "five copies of 10 MB over 20 Mbit/s alone take 21 s"


def test_hosts_that_do_not_get_to_one_another_get_it_from_here(five: LittleCluster) -> None:
    for host in five.hosts:
        host.run(["sh", "-c", "rm -f /root/.ssh/id_*"])
    done, _ = spread(five)
    assert [words[1] for key, words in done["got"].items() if key.endswith("data")] == ["1 file copied, 10.5 MB"] * 5


def test_a_name_that_leads_elsewhere_from_a_host_gets_nothing(five: LittleCluster) -> None:
    for host in five.hosts:  # node3 is node4 for the others
        host.run(["sh", "-c", f"sed 's/^{five['node3'].address} .*//' /etc/hosts >/tmp/h; cat /tmp/h >/etc/hosts"])
        host.run(["sh", "-c", f"echo {five['node4'].address} node3 >>/etc/hosts"])
    done, _ = spread(five)
    assert "handed on" not in done["got"]["node3 data"][1]
    for host in five.hosts:
        assert files(host) == ["big.bin"]


def test_the_command_copies_what_the_job_s_arguments_name(restored: LittleCluster) -> None:
    head = Head(restored)
    head.host.write("/sets/set/a.jsonl", "a")
    head.host.write("/root/lab/job/t5/model.safetensors", "w")
    job = head.host.read("/root/lab/job/trial.yaml").replace("args: {", 'args: {d: "${data_dir}", m: "${model_dir}", ')
    head.host.write("/root/lab/job/trial.yaml", f"{job}\nsync: {{data: /sets/set, model: t5, exclude: [/t5/]}}\n")
    done = head.dsdoctor("sync", "job/trial.yaml", "--hostfile", "hostfile")
    assert done.returncode == 0, done.stderr
    assert "data is on node1: 1 file copied, 1 B" in done.stdout
    node1 = restored["node1"]
    assert node1.read("/root/.dsdoctor/work/trial/model/t5/model.safetensors") == "w"
    assert not node1.exists("/root/.dsdoctor/work/trial/code/t5")
    plan = json.loads(head.dsdoctor("plan", "job/trial.yaml", "--hostfile", "hostfile", "--format", "json").stdout)
    argv = plan["stages"][0]["commands"][1]["argv"]
    assert argv[argv.index("--d") + 1] == "/root/.dsdoctor/work/trial/data/set"
    assert plan["sync"]["trees"][1]["places"]["node1"] == "/root/.dsdoctor/work/trial/model/t5"


def test_outputs_come_back_but_for_the_big_ones_which_are_named(restored: LittleCluster) -> None:
    node0 = restored["node0"]
    node0.write("/root/run/outputs/results.json", "{}")
    node0.run(["dd", "if=/dev/zero", "of=/root/run/outputs/big one.bin", "bs=1M", "count=51"])
    code = (
        "from pathlib import Path\n"
        "from dsdoctor.cluster import HostEntry\n"
        "from dsdoctor.hosts.transport.openssh import OpenSSHTransport\n"
        "from dsdoctor.plan.model import HostPlan\n"
        "from dsdoctor.run.sync.fetch import fetch\n"
        "way = OpenSSHTransport(HostEntry('node0', 1))\n"
        "host = HostPlan('node0', 1, 0, 0, 'python3', '/c', '/root/run', False, {})\n"
        "print(fetch(host, way, '/root/run/outputs', Path('/root/here')).sentence('node0', '/root/run/outputs'))\n"
        "way.close()\n"
    )
    said = restored.head.python(code).stdout
    assert said == "too big to be fetched, they stay in /root/run/outputs on node0: big one.bin\n"
    assert restored.head.read("/root/here/results.json") == "{}"
