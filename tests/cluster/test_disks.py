"""Disks of hosts that are read-only, full or fill up: told with the place, nothing half done, true verdicts."""

from __future__ import annotations

import json

import pytest

from tests.cluster.commands import WORK, Head
from tests.cluster.little_cluster import LittleCluster
from tests.cluster.test_detached import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.train, pytest.mark.timeout(900)]
LAUNCH = ("launch", "job/trial.yaml", "--hostfile", "hostfile", "--no-check", "--set", "steps=5")
RUNS = "/root/.dsdoctor/work/trial/runs"  # the folder of every run's directory on a host


@pytest.fixture
def head(restored: LittleCluster) -> Head:
    return Head(restored)


def mounted(head: Head, host: str, options: str) -> None:
    """Put a disk of its own where the runs' directories of a host are."""
    node = head.cluster[host]
    node.run(["mkdir", "-p", RUNS])
    node.run(["mount", "-t", "tmpfs", "-o", options, "runs", RUNS])


def repaired(head: Head, host: str) -> None:
    head.cluster[host].run(["umount", "-l", RUNS])


@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize(
    ("options", "reason"), [("ro", "Read-only file system"), ("size=64k,nr_inodes=3", "No space left on device")]
)
def test_a_host_whose_disk_takes_no_run_is_named_and_nothing_is_left_half_done(
    head: Head, options: str, reason: str, detach: bool
) -> None:
    mounted(head, "node1", options)
    done = head.dsdoctor(*LAUNCH, *(["--detach"] if detach else []), timeout=120)
    assert done.returncode == 1, done.stdout + done.stderr
    state = head.state()
    assert state["status"] == "failed"
    for words in ("node1", RUNS, reason):
        assert words in state["failure"]
    assert state["failure"] in done.stderr, "said on the screen as it is written down"
    assert [stage["status"] for stage in state["stages"]][1:] == ["planned", "planned"]
    wait_until(lambda: head.ranks() == [], 60)
    repaired(head, "node1")
    again = head.dsdoctor(*LAUNCH, timeout=200)
    assert again.returncode == 0, again.stderr
    assert head.state()["run"] == state["run"]


def test_a_disk_that_fills_up_under_a_detached_run_is_heard_of_through_the_room_that_was_kept(head: Head) -> None:
    mounted(head, "node0", "size=2m")
    words = ("--set", "first.steps=200", "--set", "first.pause=0.1")
    started = head.dsdoctor(*LAUNCH, *words, "--detach", timeout=120)
    assert started.returncode == 0, started.stderr
    node0 = head.cluster["node0"]
    path = head.state()["path"]
    logged = ["sh", "-c", f"cat {path}/logs/*/merged.log"]
    wait_until(lambda: "step 9" in head.host.run(logged, check=False).stdout, 90)
    node0.run(["dd", "if=/dev/zero", f"of={RUNS}/somebody-elses", "bs=4k"], check=False)
    followed = head.dsdoctor("attach", timeout=200)
    assert followed.returncode == 1, followed.stderr
    failure = head.state()["failure"]
    assert failure.startswith("stage second failed: nothing could be started on node0: "), failure
    assert "with 256 kB in it (No space left on device), and a detached run needs that" in failure
    assert head.state()["stages"][0]["status"] == "done", "the room was enough for what was left of it"
    log = head.host.run(logged).stdout
    assert all(f"node0:0| stage first step {step} " in log for step in (0, 99, 199)), "heard to the end"
    assert json.loads(head.host.read(f"{path}/verdict.json"))["verdict"]["cause"] == "disk-full"
    assert head.host.read(f"{WORK}/hostfile"), "the head's own disk has nothing to do with it"
