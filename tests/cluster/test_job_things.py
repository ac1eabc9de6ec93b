"""The job's own things and the session, over real hosts: what is missing, differs, is left over or in the way."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from dsdoctor.hosts.probe.constants import constants
from dsdoctor.hosts.probe.extensions import extension_environment
from tests.cluster.commands import Head
from tests.cluster.host import ClusterHost
from tests.cluster.little_cluster import LittleCluster

CHECK = ("check", "--hostfile", "hostfile", "--job", "job/things.yaml")
JOB = """
name: things
module: trial
args:
  model_name_or_path: /data/models/t5
  data_dir: /data/CL benchmark
  train_file: /data/train.json
  output_dir: /data/out
  log_file: /data/logs/x/train.log
stages: [{name: only}]
"""


@pytest.fixture
def head(restored: LittleCluster) -> Head:
    head = Head(restored)
    head.host.write("/root/lab/job/things.yaml", JOB)
    for name in ("node0", "node1"):
        lay(head.cluster[name])
    return head


def lay(host: ClusterHost) -> None:
    """All that the job names."""
    host.write("/data/models/t5/config.json", '{"model_type": "t5"}')
    host.write("/data/models/t5/spiece.model", "x")
    host.write("/data/models/t5/pytorch_model.bin", b"\x80\x02pickle")
    host.write("/data/CL benchmark/order 1/train.json", "[1]")
    host.write("/data/train.json", "[]")
    host.write("/data/logs/x/old.log", "")


def environment() -> str:
    """The folder of the cache that this Python and its torch use; every host of the cluster has both."""
    torch = find_spec("torch")
    if torch is None or torch.origin is None:
        pytest.skip("needs torch")
    return extension_environment(constants(Path(torch.origin).with_name("version.py").read_text()))


def found(head: Head) -> dict[str, dict[str, Any]]:
    report = head.report(*CHECK)
    assert report["counts"]["crashed"] == 0
    return {finding["name"]: finding for finding in report["findings"]}


def test_everything_in_its_place(head: Head) -> None:
    assert found(head) == {}


def test_everything_somewhere_else(head: Head) -> None:
    node1 = head.cluster["node1"]
    node1.remove("/data/models")
    node1.remove("/data/logs")
    node1.write("/data/CL benchmark/order 1/train.json", "[2]")
    node1.write("/data/train.json", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    node1.write("/data/out/checkpoint-7/trainer_state.json", "{}")
    node1.write("/root/.bashrc", "echo '*** maintenance on Sunday ***'; sleep 0.7\n")
    lock = f"/root/.cache/torch_extensions/{environment()}/cpu_adam/lock"
    node1.write(lock, "")
    node1.run(["touch", "-d", "3 hours ago", lock])
    seen = found(head)
    names = {
        "missing-input", "missing-log-folder", "inputs-differ", "git-lfs-pointer", "stale-outputs", "shell-noise",
        "slow-shell", "stale-extension-lock",
    }  # fmt: skip
    assert set(seen) == names
    assert all(finding["hosts"] == ["node1"] for finding in seen.values())
    assert "3 hours old" in seen["stale-extension-lock"]["message"]
    # The ways out, pasted on the head.
    node1.write("/root/.bashrc", "")
    for name in ("missing-input", "missing-log-folder", "stale-outputs", "stale-extension-lock"):
        for command in seen[name]["fix"][0]["commands"]:
            head.host.run(["bash", "-c", command])
    assert set(found(head)) == {"inputs-differ", "git-lfs-pointer"}


def test_rsync_does_fail_behind_a_shell_that_prints(head: Head) -> None:
    head.cluster["node1"].write("/root/.bashrc", "echo '*** maintenance on Sunday ***'\n")
    done = head.host.run(["rsync", "-a", "job/", "node1:/tmp/job/"], cwd="/root/lab", check=False)
    assert done.returncode != 0 and "is your shell clean" in done.stderr


def test_a_full_disk(head: Head) -> None:
    head.cluster["node1"].fill_disk(free_mib=4)
    seen = found(head)
    assert seen["disk-full"]["hosts"] == ["node1"]
    head.cluster["node1"].fill_disk(free_mib=300)
    seen = found(head)
    assert seen["low-disk"]["hosts"] == ["node1"] and "disk-full" not in seen
