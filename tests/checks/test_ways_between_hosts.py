"""The parts that the checks of NCCL and the network share: interfaces, adapters, addresses, sources of settings."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.version import Version

from dsdoctor.addresses import job_address, job_link, link_local, overlap, subnet
from dsdoctor.checks.ib_use import active_ports, selected_ports
from dsdoctor.checks.ifname import automatic
from dsdoctor.checks.interfaces import only_link_local, private_bridge, told_speed, tunnel
from dsdoctor.checks.rank_settings import setting, settings
from dsdoctor.cluster import HostEntry
from dsdoctor.facts import Address, HostFacts, InfinibandFacts, Interface, NetworkFacts, Section, Snapshot
from tests.checks.building import load_cluster

OLD, NEW = Version("2.27.7"), Version("2.28.3")


def interface(name: str, *addresses: str, up: bool = True, **more: Any) -> dict[str, Any]:
    held = [{"address": one, "prefix": 24, "family": "inet6" if ":" in one else "inet"} for one in addresses]
    return {"name": name, "up": up, "addresses": held, "loopback": name == "lo", **more}


def network(*interfaces: dict[str, Any]) -> NetworkFacts:
    return msgspec.convert({"interfaces": interfaces}, NetworkFacts)


LO = interface("lo", "127.0.0.1", "::1")
ETH = interface("eth0", "192.0.2.1", "fe80::1")
DOCKER = interface("docker0", "172.17.0.1", kind="bridge", virtual=True)


class TestWhatNcclTakesByItself:
    """As the libraries of 2.18.1, 2.27.7 and 2.28.9 did in a network namespace: IPv4 first, in the kernel's order."""

    @pytest.mark.parametrize(
        ("interfaces", "old", "new"),
        [
            ([LO, ETH, DOCKER], ["eth0"], ["eth0"]),
            ([LO, DOCKER], ["docker0"], ["docker0"]),
            ([LO], ["lo"], ["lo"]),
            ([], [], []),
            ([LO, ETH, interface("ib1", "203.0.113.1"), interface("ibs0")], ["ib1"], ["ib1"]),
            ([LO, interface("eth1", "fe80::2"), ETH], ["eth0", "eth1"], ["eth0", "eth1"]),
            ([LO, interface("eth1", "192.0.2.9", up=False), ETH], ["eth1", "eth0"], ["eth0"]),
            ([LO, interface("virbr0", "192.168.122.1"), ETH], ["virbr0", "eth0"], ["eth0"]),
            ([LO, interface("virbr0", "192.168.122.1")], ["virbr0"], ["lo"]),
            ([interface("virbr0", "192.168.122.1")], ["virbr0"], ["virbr0"]),
            ([interface("br-1", "172.18.0.1"), ETH], ["br-1", "eth0"], ["br-1", "eth0"]),
        ],
    )
    def test_order(self, interfaces: list[dict[str, Any]], old: list[str], new: list[str]) -> None:
        assert [item.name for item in automatic(network(*interfaces), OLD)] == old
        assert [item.name for item in automatic(network(*interfaces), NEW)] == new
        assert [item.name for item in automatic(network(*interfaces), None)] == new

    def test_no_more_than_it_has_room_for(self) -> None:
        many = [interface(f"eth{number}", f"192.0.2.{number}") for number in range(40)]
        assert len(automatic(network(*many), NEW)) == 16


class TestKindsOfInterfaces:
    @pytest.mark.parametrize(
        ("bridge", "ports", "private"),
        [
            (interface("br0", kind="bridge"), [interface("eno1", master="br0")], False),
            (interface("br0", kind="bridge"), [interface("bond0", master="br0", kind="bond", virtual=True)], False),
            (interface("br0", kind="bridge"), [interface("vnet3", master="br0", kind="tun", virtual=True)], True),
            (interface("br0", kind="bridge"), [], False),
            (interface("docker0", kind="bridge"), [], True),
            (interface("br-0123456789ab", virtual=True), [], True),
            (interface("docker0"), [], False),
            (interface("docker0", kind="vlan", virtual=True), [], False),
        ],
    )
    def test_bridges(self, bridge: dict[str, Any], ports: list[dict[str, Any]], private: bool) -> None:
        facts = network(bridge, *ports)
        assert private_bridge(facts, facts.interfaces[0]) is private

    def test_tunnels_and_addresses_nobody_gave(self) -> None:
        facts = network(
            interface("tun0", "10.8.0.1", kind="tun"), interface("wg0", virtual=True), ETH, interface("eth1", "fe80::2")
        )
        assert [tunnel(item) for item in facts.interfaces] == [True, True, False, False]
        assert [only_link_local(item) for item in facts.interfaces] == [False, False, False, True]

    def test_speeds(self) -> None:
        def told(**more: Any) -> int | None:
            return told_speed(Interface(name="x", up=True, speed_mbit=10_000, **more))

        assert [told(), told(virtual=True), told(virtual=True, kind="bond")] == [10_000, None, 10_000]


class TestAdapters:
    PORTS = (("mlx5_0", 1), ("mlx5_1", 1), ("mlx5_1", 2), ("mlx5_10", 1))

    def facts(self, **more: Any) -> InfinibandFacts:
        devices: dict[str, list[dict[str, Any]]] = {}
        for name, port in self.PORTS:
            state = {"port": port, "state": "ACTIVE", "link_layer": "InfiniBand"}
            devices.setdefault(name, []).append(state)
        rows = [{"name": name, "ports": ports} for name, ports in devices.items()]
        return msgspec.convert({"devices": rows, **more}, InfinibandFacts)

    @pytest.mark.parametrize(
        ("value", "selected"),
        [
            ("mlx5_1", ["mlx5_1:1", "mlx5_1:2", "mlx5_10:1"]),
            ("=mlx5_1", ["mlx5_1:1", "mlx5_1:2"]),
            ("=mlx5_1:2", ["mlx5_1:2"]),
            ("mlx5_1:2,mlx5_0", ["mlx5_0:1", "mlx5_1:2"]),
            ("^mlx5_1", ["mlx5_0:1"]),
            ("^=mlx5_1", ["mlx5_0:1", "mlx5_10:1"]),
            ("=ibp1", []),
            ("", ["mlx5_0:1", "mlx5_1:1", "mlx5_1:2", "mlx5_10:1"]),
            (",,", ["mlx5_0:1", "mlx5_1:1", "mlx5_1:2", "mlx5_10:1"]),
            ("=mlx5_1::3", ["mlx5_1:1", "mlx5_1:2"]),
            ("^", []),
        ],
    )
    def test_selection(self, value: str, selected: list[str]) -> None:
        assert [str(port) for port in selected_ports(self.facts(), value)] == selected

    @given(st.text("^=,:mlx5_012", max_size=12))
    def test_any_value_selects_some_of_the_active_ports(self, value: str) -> None:
        assert set(map(str, selected_ports(self.facts(), value))) <= set(map(str, active_ports(self.facts())))

    @pytest.mark.parametrize("more", [{"verbs": []}, {"libibverbs": False}])
    def test_what_cannot_be_opened(self, more: dict[str, Any]) -> None:
        assert active_ports(self.facts(**more)) == ()
        assert len(active_ports(self.facts(verbs=["uverbs0"], libibverbs=True))) == 4


class TestAddresses:
    def test_the_hosts_own_address_and_interface(self) -> None:
        cluster = load_cluster("xuanyuan")
        links = [job_link(member, cluster) for member in cluster]
        assert [(link.interface.name, link.address.address) for link in links if link] == [
            ("bond0", "192.0.2.4"),
            ("eno1", "192.0.2.5"),
        ]
        alone = load_cluster("lab4090")
        assert job_address(alone.master, alone) is None

    @pytest.mark.parametrize(
        ("address", "prefix", "net"),
        [
            ("192.0.2.9", 24, "192.0.2.0/24"),
            ("2001:db8::9", 64, "2001:db8::/64"),
            ("192.0.2.9", 32, None),
            ("169.254.3.4", 16, None),
            ("fe80::1%eth0", 64, None),
            ("127.0.0.1", 8, None),
            ("nonsense", 24, None),
            ("192.0.2.9", 99, None),
        ],
    )
    def test_networks(self, address: str, prefix: int, net: str | None) -> None:
        found = subnet(Address(address=address, prefix=prefix))
        assert (None if found is None else str(found)) == net

    def test_what_overlaps(self) -> None:
        one = subnet(Address(address="10.0.0.1", prefix=8))
        other = subnet(Address(address="10.9.0.1", prefix=16))
        sixth = subnet(Address(address="2001:db8::9", prefix=64))
        assert one and other and sixth
        assert overlap(one, other) and overlap(other, one) and not overlap(one, sixth)
        assert [link_local(text) for text in ("fe80::1%eth0", "169.254.0.1", "192.0.2.1", "gpu-a", "")] == [
            True,
            True,
            False,
            False,
            False,
        ]


def host(**environment: Any) -> HostFacts:
    return HostFacts(Snapshot(host="h", sections={"environment": Section(value=environment)}))


def test_where_a_setting_comes_from() -> None:
    files = [
        {"path": "/etc/nccl.conf", "variables": {"NCCL_DEBUG": "WARN", "NCCL_ALGO": "Ring"}},
        {"path": "/opt/x", "reader": "nccl", "variables": {"NCCL_DEBUG": "INFO", "TORCH_X": "1"}},
        {"path": "/home/alice/.deepspeed_env", "variables": {"NCCL_PROTO": "LL"}},
    ]
    facts = host(variables={"NCCL_IB_DISABLE": "1"}, files=files)
    found = settings(facts, HostEntry("h", 1, ifname="eno1"), None)
    assert {name: (got.value, got.source) for name, got in found.items()} == {
        "NCCL_DEBUG": ("INFO", "/opt/x"),
        "NCCL_ALGO": ("Ring", "/etc/nccl.conf"),
        "NCCL_IB_DISABLE": ("1", "the environment"),
        "NCCL_SOCKET_IFNAME": ("=eno1", "ifname= in the hostfile"),
        "GLOO_SOCKET_IFNAME": ("eno1", "ifname= in the hostfile"),
    }
    assert setting("TORCH_X", facts, HostEntry("h", 1), None) is None
