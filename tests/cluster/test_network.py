"""`dsdoctor check --network`: the ways between real hosts, open, shut, half open and thin."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator

import pytest

from tests.cluster.commands import WORK, Head
from tests.cluster.host import ClusterHost
from tests.cluster.little_cluster import LittleCluster

CHECK = ("check", "--hostfile", "hostfile", "--network")


@pytest.fixture
def head(restored: LittleCluster) -> Head:
    return Head(restored)


@pytest.fixture
def node1(head: Head) -> Iterator[ClusterHost]:
    """A host whose packet filter is taken back."""
    host = head.cluster["node1"]
    yield host
    host.run(["nft", "flush", "ruleset"], check=False)


def named(report: dict[str, object]) -> dict[str, str]:
    findings = report["findings"]
    assert isinstance(findings, list)
    return {finding["name"]: finding["message"] for finding in findings}


def shut(host: ClusterHost, *rules: str) -> None:
    """Filter what is asked of a host by others; ssh stays open, and so does the answer to what the host asks."""
    filter_input(host, "ct state established,related accept", "tcp dport 22 accept", *rules)


def filter_input(host: ClusterHost, *rules: str) -> None:
    chain = ["type filter hook input priority 0", *rules]
    host.run(["nft", "-f", "-"], given="table inet f {\nchain in {\n" + "\n".join(chain) + "\n}\n}\n")


def test_open_ways_have_nothing_to_say(head: Head) -> None:
    began = time.monotonic()
    report = head.report(*CHECK)
    assert named(report) == {}
    assert {"peer-unreachable", "slow-network", "long-round-trip"} <= set(report["passed"])
    assert report["exit_code"] == 0
    assert time.monotonic() - began < 15


@pytest.mark.parametrize(("verdict", "word"), [("drop", "timed out"), ("reject with tcp reset", "refused")])
def test_a_firewall_is_named_with_its_direction(head: Head, node1: ClusterHost, verdict: str, word: str) -> None:
    shut(node1, f"tcp dport 1024-65535 {verdict}")
    report = head.report(*CHECK)
    messages = [finding["message"] for finding in report["findings"] if finding["name"] == "peer-unreachable"]
    assert len(messages) == 1
    assert messages[0].startswith("node0 cannot connect to node1 at ")
    assert word in messages[0]
    assert report["exit_code"] == 1


def test_a_master_of_which_only_one_port_is_open(head: Head) -> None:
    node0 = head.cluster["node0"]
    shut(node0, "tcp dport 29500 accept", "tcp dport 1024-65535 drop")
    try:
        messages = named(head.report(*CHECK))
    finally:
        node0.run(["nft", "flush", "ruleset"], check=False)
    assert "the other port is open, so a firewall lets only some through" in messages["peer-unreachable"]


def test_a_thin_link_is_measured(head: Head, node1: ClusterHost) -> None:
    filter_input(node1, "tcp dport 1024-65535 limit rate over 4 mbytes/second burst 256 kbytes drop")
    messages = named(head.report(*CHECK))
    assert "Mbit/s" in messages["slow-network"]


def test_a_host_that_freezes_in_the_trial_costs_bounded_time(head: Head, node1: ClusterHost) -> None:
    # The interpreter answers the probe, and hangs when it is to run anything more.
    script = '#!/bin/sh\nmkdir /root/once 2>/dev/null || sleep 1000\nexec python3 "$@"\n'
    node1.write("/root/python-once", script, mode=0o755)
    hostfile = re.sub(r"(node1.*python=)\S+", r"\1/root/python-once", head.host.read(f"{WORK}/hostfile"))
    head.host.write(f"{WORK}/hostfile", hostfile)
    began = time.monotonic()
    report = head.report(*CHECK)
    assert time.monotonic() - began < 60
    assert "node0 cannot connect to node1" in named(report)["peer-unreachable"]
    assert [skipped["hosts"] for skipped in report["skipped"] if skipped["name"] == "peer-unreachable"] == [["node1"]]


def test_what_was_tried_is_in_the_snapshots(head: Head) -> None:
    head.report(*CHECK, "--save-facts", "facts", "--redact")
    kept = head.host.run(["sh", "-c", f"cat {WORK}/facts/*.json"]).stdout
    assert "node1" not in kept
    saved = json.loads(head.host.run(["sh", "-c", f"cat {WORK}/facts/host2.json"]).stdout)
    (peer,) = saved["sections"]["peers"]["value"]["peers"]
    assert peer["peer"] == "host1"
    assert {port["kind"] for port in peer["ports"]} == {"ephemeral", "master"}


def test_no_process_and_no_port_is_left(head: Head) -> None:
    head.report(*CHECK)
    for host in head.cluster.hosts:
        assert not host.ps("python")
        assert ":29500" not in host.run(["ss", "-ltn"]).stdout
