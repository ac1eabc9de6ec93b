"""`dsdoctor check --deep` on real hosts with real torch: healthy, ill, lost in the middle, interrupted."""

from __future__ import annotations

import json
import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.commands import WORK, Head
from tests.cluster.little_cluster import REPOSITORY, LittleCluster
from tests.cluster.plant import SITE_PACKAGES

pytestmark = [pytest.mark.slow, pytest.mark.train, pytest.mark.timeout(300)]
CHECK = ("check", "--hostfile", "hostfile", "--deep")
MARKS = ("dsdoctor-deep", "torch.distributed.run", "guardian", "dsdoctor-trial")
# The hosts see the machine's working tree and interpreter where these are, which may be below /tmp.
SHOWN = {str(folder) for path in (REPOSITORY, Path(sys.prefix), Path(sys.base_prefix)) for folder in path.parents}


@pytest.fixture
def head(restored: LittleCluster) -> Head:
    return Head(restored)


def report_of(head: Head, *words: str) -> dict[str, Any]:
    done = head.dsdoctor(*CHECK, *words, "--format", "json", timeout=240)
    assert done.stdout.startswith("{"), done.stdout + done.stderr
    return {**json.loads(done.stdout), "exit_code": done.returncode}


def named(report: dict[str, Any]) -> dict[tuple[str, tuple[str, ...]], str]:
    return {(finding["name"], tuple(finding["hosts"])): finding["message"] for finding in report["findings"]}


def deep_of(head: Head, host: str) -> dict[str, Any]:
    section = json.loads(head.host.read(f"{WORK}/facts/{host}.json"))["sections"]["deep"]
    value = section["value"]
    assert isinstance(value, dict), section
    return value


def left(head: Head) -> list[str]:
    """What of a trial is still there on any host: processes, folders, a port."""
    found = []
    for host in head.hosts_up():
        found += [f"{host.name}: {process}" for process in host.ps() if any(mark in str(process) for mark in MARKS)]
        files = host.run(["sh", "-c", "ls -d /tmp/*"], check=False).stdout.split()
        found += [f"{host.name}: {name}" for name in files if name not in SHOWN]
        found += [f"{host.name}: a port"] * (":29500" in host.run(["ss", "-ltn"]).stdout)
    return found


def wait_until(happens: Callable[[], bool], timeout: float) -> float:
    began = time.monotonic()
    while not happens():
        assert time.monotonic() - began < timeout, f"not within {timeout} s"
        time.sleep(0.1)
    return time.monotonic() - began


def in_the_middle(head: Head, host: str) -> None:
    """Wait until the ranks of a host are at work."""
    wait_until(lambda: len(head.cluster[host].ps("dsdoctor-deep")) > 2, 90)


def test_two_healthy_hosts(head: Head) -> None:
    report = report_of(head, "-v", "--save-facts", "facts", "--network")
    assert named(report) == {}
    assert report["exit_code"] == 0
    assert {"torch-import-fails", "collective-fails", "collective-slow"} <= set(report["passed"])
    assert report["seconds"] < 120
    ranks = {}
    for host in ("node0", "node1"):
        deep = deep_of(head, host)
        assert deep["torch"]["version"]
        assert [step["error"] for step in deep["steps"]] == [None] * len(deep["steps"])
        scopes = {part["scope"]: part for part in deep["collectives"]}
        assert set(scopes) == {"host", "job"}
        ranks.update({rank["rank"]: rank for rank in scopes["job"]["ranks"]})
        for part in scopes.values():
            for rank in part["ranks"]:
                assert rank["at"] == "done"
                assert [(each["bytes"], each["wrong"]) for each in rank["sums"]] == [
                    (1 << 10, 0),
                    (1 << 20, 0),
                    (64 << 20, 0),
                ]
    assert {number: rank["host"] for number, rank in ranks.items()} == {0: "node0", 1: "node0", 2: "node1"}
    notes = "\n".join(report["notes"])
    assert "All-reduce of 64 MiB over 3 ranks on 2 hosts (gloo)" in notes
    assert re.search(r"node1: torch \d+\.\d s, host all-reduce \d+\.\d s.*, job all-reduce \d+\.\d s", notes)
    assert left(head) == []


def test_a_host_whose_torch_is_broken(head: Head) -> None:
    head.cluster["node1"].write(f"{SITE_PACKAGES}/torch/lib/libtorch_global_deps.so", "cut off")
    report = report_of(head)
    found = named(report)
    assert set(found) == {("torch-import-fails", ("node1",))}
    assert "libtorch_global_deps.so" in found["torch-import-fails", ("node1",)]
    reasons = {skipped["reason"] for skipped in report["skipped"] if skipped["name"] == "collective-fails"}
    assert reasons == {"no all-reduce over all hosts was tried: node1 cannot import torch"}
    assert left(head) == []


def with_words(head: Head, host: str, words: str) -> None:
    hostfile = re.sub(rf"({host} .*)", rf"\1 {words}", head.host.read(f"{WORK}/hostfile"))
    head.host.write(f"{WORK}/hostfile", hostfile)


def test_an_interface_that_is_not_there_is_named_on_its_host(head: Head) -> None:
    with_words(head, "node1", "ifname=eth7")
    found = named(report_of(head, "--select", "collective-fails"))
    assert set(found) == {("collective-fails", ("node1",))}
    assert "GLOO_SOCKET_IFNAME is eth7" in found["collective-fails", ("node1",)]
    assert left(head) == []


def test_an_interface_that_leads_nowhere_shows_only_over_all_hosts(head: Head) -> None:
    # Of two, gloo lets the smaller address be connected to: this one is below 10.77.0.0.
    head.cluster["node0"].add_nic("lxcbr0", "10.0.3.1/24")
    with_words(head, "node0", "ifname=lxcbr0")
    began = time.monotonic()
    report = report_of(head, "--save-facts", "facts", "--select", "collective-fails")
    assert time.monotonic() - began < 170
    assert [name for name, _ in named(report)] == ["collective-fails"]
    (finding,) = report["findings"]
    assert finding["message"].startswith("the 3 ranks of 2 hosts cannot all-reduce with gloo: a peer is not reached")
    assert any("rank 0, 1: joining the others, by lxcbr0" in piece["text"] for piece in finding["evidence"])
    own = {part["scope"]: part["error"] for part in deep_of(head, "node0")["collectives"]}
    assert own["host"] is None
    assert own["job"] is not None
    assert left(head) == []


def test_a_host_that_loses_its_power_in_the_middle(head: Head) -> None:
    running = head.start(*CHECK, "--format", "json")
    in_the_middle(head, "node1")
    head.cluster["node1"].poweroff()
    began = time.monotonic()
    output, _ = running.communicate(timeout=120)
    assert time.monotonic() - began < 60
    found = named(json.loads(output[output.index("{") :]))
    assert set(found) == {("collective-fails", ("node1",))}
    assert found["collective-fails", ("node1",)].startswith("node1 was lost in the trial, at ")
    assert running.returncode == 1
    assert left(head) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_whatever_ends_the_head_nothing_is_left(head: Head, number: int) -> None:
    running = head.start(*CHECK)
    in_the_middle(head, "node1")
    running.send_signal(number)
    running.communicate(timeout=30)
    assert running.returncode == (130 if number == signal.SIGINT else -number)
    until = time.monotonic() + 15
    while (there := left(head)) and time.monotonic() < until:
        time.sleep(0.2)
    assert there == []
