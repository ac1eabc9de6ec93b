"""The little cluster is what it says: separate hosts, real faults, nothing left afterwards."""

from __future__ import annotations

from tests.cluster.little_cluster import LittleCluster


def test_hosts_have_their_own_name_and_nic(two_hosts: LittleCluster) -> None:
    seen = {
        host.name: (host.run(["hostname"]).stdout.strip(), host.run(["ls", "/sys/class/net"]).stdout.split())
        for host in (two_hosts.head, *two_hosts.hosts)
    }
    assert seen == {
        "head": ("head", ["eth0", "lo"]),
        "node0": ("node0", ["bond0", "lo"]),
        "node1": ("node1", ["eno1", "lo"]),
    }


def test_ssh_by_name_to_a_host_with_a_known_key(two_hosts: LittleCluster) -> None:
    assert two_hosts.head.ssh("node0", "hostname").stdout == "node0\n"
