"""A real torchrun job under watch: a rank that is stopped, one that sleeps, wrong numbers, long work that is well."""

from __future__ import annotations

import json
import re
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.commands import WORK, Head
from tests.cluster.little_cluster import LittleCluster
from tests.cluster.prerequisites import skip_or_fail
from tests.cluster.test_launch import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.train, pytest.mark.timeout(300)]
LAUNCH = ("launch", "job/watched.yaml", "--hostfile", "hostfile", "--no-check")


@pytest.fixture
def head(restored: LittleCluster) -> Head:
    there = (Path(sys.executable).parent / "py-spy").exists()
    skip_or_fail("" if there else "the stacks of ranks need py-spy beside Python: pip install py-spy")
    return Head(restored)


def merged(head: Head) -> str:
    return head.host.run(["sh", "-c", f"cat {WORK}/runs/*/logs/1-train/merged.log"], check=False).stdout


def stacks(head: Head, path: str) -> dict[str, str]:
    names = head.host.run(["ls", f"{path}/stacks"]).stdout.split()
    return {name: head.host.read(f"{path}/stacks/{name}") for name in names}


def verdict(head: Head, path: str) -> dict[str, Any]:
    return json.loads(head.host.read(f"{path}/verdict.json"))["verdict"]


def test_a_rank_that_sleeps_is_named_and_the_run_ended_when_that_is_wanted(head: Head) -> None:
    began = time.monotonic()
    done = head.dsdoctor(*LAUNCH, "--set", "behaviour=sleep", "--stall-after", "4", "--stop-on-stall", timeout=120)
    assert done.returncode == 1, done.stderr
    assert time.monotonic() - began < 90
    said = next(line for line in done.stderr.splitlines() if "! stalled: " in line)
    assert "after step 29" in said
    assert "rank 1 on node0 is in wait_for_the_data (watched.py:" in said
    assert "rank 0 on node0 waits in all_reduce" in said or "ranks 0, 2 wait in all_reduce (watched.py:" in said
    assert said.endswith("rank 1 on node0 is behind")
    state = head.state()
    assert verdict(head, state["path"])["cause"] == "run-stalled"
    assert (verdict(head, state["path"])["host"], verdict(head, state["path"])["rank"]) == ("node0", 1)
    assert state["stages"][0]["failure"].startswith("stage train was stopped: it stalled: no step for ")
    kept = stacks(head, state["path"])
    assert [re.sub(r"-\d+\.txt$", "", name) for name in sorted(kept)] == ["node0-rank0", "node0-rank1", "node1-rank2"]
    assert "wait_for_the_data (" in next(text for name, text in kept.items() if "rank1" in name)
    assert head.ranks() == []


def test_a_rank_that_is_stopped_is_told_apart_and_the_run_goes_on_when_it_does(head: Head) -> None:
    running = head.start(*LAUNCH, "--set", "steps=400", "--stall-after", "4")
    node1 = head.cluster["node1"]
    wait_until(lambda: "node1:2| step 5/" in merged(head), 90)
    rank = next(each for each in node1.ps("watched") if "torch.distributed.run" not in " ".join(each.argv))
    node1.kill(rank.pid, signal.SIGSTOP)
    stopped = time.monotonic()
    wait_until(lambda: "dsdoctor: stalled: " in merged(head), 30)
    noticed = time.monotonic() - stopped
    line = next(line for line in merged(head).splitlines() if "dsdoctor: stalled: " in line)
    assert line.startswith("node1:2| ")
    assert "rank 2 on node1 is stopped (state T" in line
    assert f"kill -CONT {rank.pid} on node1 wakes it" in line
    assert "ranks 0-1 wait in all_reduce" in line
    assert noticed < 15
    node1.kill(rank.pid, signal.SIGCONT)
    output, _ = running.communicate(timeout=90)
    assert running.returncode == 0, output
    assert "the stall is over after" in output
    progress = json.loads(head.host.read(f"{head.state()['path']}/progress.json"))
    assert (progress["step"], progress["steps"], progress["stalled"]) == (400, 400, False)
    assert set(progress["hosts"]) == {"node0", "node1"}


@pytest.mark.parametrize("behaviour", ["evaluation", "checkpoint"])
def test_long_silent_work_is_not_accused(head: Head, behaviour: str) -> None:
    words = ("--set", f"behaviour={behaviour}", "--stall-after", "3", "--stop-on-stall")
    done = head.dsdoctor(*LAUNCH, *words, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "stalled" not in done.stderr
    assert head.host.run(["ls", f"{head.state()['path']}/stacks"], check=False).returncode != 0
    if behaviour == "checkpoint":
        assert "it is no stall: rank 0 on node0 is in save_checkpoint (watched.py:" in done.stderr


@pytest.mark.parametrize(
    ("behaviour", "told"),
    [
        ("lr0", "! the learning rate has been 0 since the start, on 10 lines at step 10 (rank 0 on node0)"),
        ("nan", "! the training loss is nan at step 31 (rank "),
    ],
)
def test_numbers_that_are_wrong_are_told_once_while_it_runs(head: Head, behaviour: str, told: str) -> None:
    done = head.dsdoctor(*LAUNCH, "--set", f"behaviour={behaviour}", timeout=120)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if told[:30] in line]
    assert len(lines) == 1
    assert re.search(re.escape(told).replace("rank\\ 0\\ on\\ node0", r"rank \d on node\d"), lines[0])
    assert merged(head).count("dsdoctor: ") == 1


def test_without_py_spy_the_kernel_tells_who_is_elsewhere(head: Head) -> None:
    # A file that cannot be run in its place, in the mount table of these hosts alone.
    for host in head.cluster.hosts:
        host.run(["sh", "-c", f"printf '' > /root/no-spy && mount --bind /root/no-spy {spy_of(head)}"])
    done = head.dsdoctor(*LAUNCH, "--set", "behaviour=sleep", "--stall-after", "4", "--stop-on-stall", timeout=120)
    assert done.returncode == 1, done.stderr
    said = next(line for line in done.stderr.splitlines() if "! stalled: " in line)
    assert "rank 1 on node0 sleeps in " in said
    assert "pip install py-spy" in done.stderr
    kept = stacks(head, head.state()["path"])
    assert "threads in the kernel" in next(iter(kept.values()))


def test_a_detached_run_is_watched_by_its_own_head(head: Head) -> None:
    words = ("--set", "behaviour=sleep", "--stall-after", "4", "--stop-on-stall", "--detach")
    done = head.dsdoctor(*LAUNCH, *words, timeout=120)
    assert done.returncode == 0, done.stderr
    wait_until(lambda: head.state()["status"] == "failed", 90)
    state = head.state()
    assert verdict(head, state["path"])["cause"] == "run-stalled"
    assert "rank 1 on node0 is behind" in state["stages"][0]["failure"]
    assert head.ranks() == []


def head_python(head: Head) -> str:
    return head.host.read(f"{WORK}/hostfile").split("python=")[1].split()[0]


def spy_of(head: Head) -> str:
    return head_python(head).rpartition("/")[0] + "/py-spy"
