"""Ways between real hosts that are not what they look like, and files that launchers read, as `check` sees them."""

from __future__ import annotations

import pytest

from tests.cluster.commands import Head
from tests.cluster.host import ClusterHost
from tests.cluster.little_cluster import LittleCluster
from tests.cluster.plant import plant_environment
from tests.cluster.test_check import CHECK, found


@pytest.fixture
def head(restored: LittleCluster) -> Head:
    return Head(restored)


def setting(host: ClusterHost, name: str, value: str) -> None:
    host.run(["sh", "-c", f"echo {value} >/proc/sys/net/ipv4/conf/{name}"])


def answers(host: ClusterHost, address: str) -> bool:
    """Whether a packet to an address is answered within a second."""
    return host.run(["ping", "-c", "1", "-W", "1", address], check=False).returncode == 0


@pytest.mark.parametrize(("rp_filter", "severity"), [(1, "error"), (2, "warning")])
def test_answers_by_another_card_are_told_and_a_strict_filter_really_drops_them(
    head: Head, rp_filter: int, severity: str
) -> None:
    node0, node1 = head.cluster["node0"], head.cluster["node1"]
    node1.add_nic("ens9", "10.78.0.11/24")
    node0.run(["ip", "route", "add", "10.78.0.0/24", "dev", node0.nic])
    node0.write("/etc/hosts", f"127.0.0.1 localhost\n{node0.address} node0\n10.78.0.11 node1\n")
    setting(node1, "all/arp_ignore", "1")  # on one switch the other card would answer for the address, too
    setting(node1, "all/rp_filter", "0")
    setting(node1, "ens9/rp_filter", str(rp_filter))
    assert answers(node0, "10.78.0.11") is (rp_filter == 2)
    report = head.report(*CHECK)
    assert ("asymmetric-route", ("node1",)) in found(report, severity)
    (finding,) = [one for one in report["findings"] if one["name"] == "asymmetric-route"]
    assert finding["message"].startswith(f"packets from node0 come in by ens9, and answers to {node0.address} leave by")


def test_a_second_card_in_the_network_and_other_frames(head: Head) -> None:
    node1 = head.cluster["node1"]
    node1.add_nic("ens9", "10.77.0.211/24")
    node1.run(["ip", "link", "set", node1.nic, "mtu", "1400"])
    report = head.report(*CHECK)
    assert found(report) == {("subnets-overlap", ("node1",)), ("mtu-differs", ("node0", "node1"))}


def test_cards_with_networks_of_their_own_are_no_news(head: Head) -> None:
    for number, name in enumerate(("node0", "node1")):
        head.cluster[name].add_nic("ens9", f"10.78.0.1{number}/24")
    assert found(head.report(*CHECK)) == set()


def test_one_name_for_two_hosts(head: Head) -> None:
    head.cluster["node1"].run(["hostname", "node0"])
    assert ("hostname-shared", ("node0", "node1")) in found(head.report(*CHECK), "warning")


def test_files_of_launchers(head: Head) -> None:
    node0, node1 = head.cluster["node0"], head.cluster["node1"]
    node0.write("/root/.deepspeed_env", f"GLOO_SOCKET_IFNAME={node0.nic}\n\n# P2P off = yes\n")
    plant_environment(node1, {"http_proxy": "http://127.0.0.1:10809", "TORCH_DISTRIBUTED_DEBUG": "DETAIL"})
    report = head.report(*CHECK)
    assert found(report, "error") == {
        ("ds-env-file-invalid", ("node0",)),
        ("rank-variables-differ", ("node0", "node1")),
    }
    assert found(report, "warning") == {
        ("ds-env-carried-over", ("node1",)),
        ("debug-left-on", ("node1",)),
        ("proxy-catches-hosts", ("node1",)),
    }
