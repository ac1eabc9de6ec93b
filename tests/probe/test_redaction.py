"""Redaction: nothing of people and machines is left, and everything that a check compares is still there."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_interface, ip_network
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dsdoctor.facts import HostFacts, Section, Snapshot
from dsdoctor.hosts.placeholders import AddressPlan, Names, stays
from dsdoctor.hosts.redaction import Redaction
from dsdoctor.hosts.snapshots import load, redact

RESERVED = [ip_network(text) for text in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "198.18.0.0/15")]
RESERVED += [ip_network(text) for text in ("240.0.0.0/4", "2001:db8::/32", "3fff::/20")]


def snapshot(host: str, **sections: Any) -> Snapshot:
    return Snapshot(
        host=host, origin="recorded on paper", sections={name: Section(value=v) for name, v in sections.items()}
    )


def redacted(*given_snapshots: Snapshot) -> list[Snapshot]:
    redaction = Redaction(given_snapshots)
    return [redaction.snapshot(one) for one in given_snapshots]


A = snapshot(
    "gpu-a",
    os={"hostname": "gpu-a.cluster.corp.example", "user": "chen", "uid": 1234, "kernel": "3.10", "machine": "x86_64"},
    python={
        "version": "3.10.13",
        "executable": "/home/chen/miniconda3/bin/python",
        "path": ["/home/chen/lib", "/data/chen/x"],
    },
    packages={"distributions": [{"name": "chen", "version": "10.1.2.3", "location": "/home/chen/lib"}]},
    gpu={
        "status": "ok",
        "driver_version": "10.20.30.40",
        "gpus": [
            {
                "index": 0,
                "name": "A100",
                "uuid": "GPU-5ca1ab1e-1234-5678-9abc-def012345678",
                "pci_bus_id": "00000000:17:00.0",
                "processes": [{"pid": 1, "user": "Bob", "command": "python train.py"}],
            }
        ],
    },
    network={
        "interfaces": [
            {
                "name": "bond0",
                "up": True,
                "mac": "3c:ec:ef:12:34:56",
                "addresses": [
                    {"address": "10.20.144.4", "prefix": 24},
                    {"address": "fe80::3eec:efff:fe12:3456", "prefix": 64},
                ],
            },
            {"name": "enx3cecef123456", "up": True, "mac": "3c:ec:ef:12:34:56"},
        ],
        "resolves": {"gpu-b": ["10.20.144.5"], "gpu-a": ["127.0.1.1"]},
        "resolve_errors": {"gpu-c.corp.example": "Name or service not known"},
        "routes": [{"target": "gpu-b", "address": "10.20.144.5", "device": "enx3cecef123456", "via": "10.20.144.1"}],
        "port_range": [32768, 60999],
    },
    disk={"paths": [{"path": "/home/chen", "source": "filer7:/export/home", "filesystem": "nfs4"}]},
    environment={
        "variables": {
            "MASTER_ADDR": "gpu-b",
            "NCCL_SOCKET_IFNAME": "bond0",
            "CUDA_VISIBLE_DEVICES": "GPU-5ca1ab1e",
            "http_proxy": "http://***@proxy.corp.example:3128",
            "no_proxy": "localhost,10.20.,.corp.example,10.20.144.5,192.168.0.0/16",
            "SLURM_JOB_USER": "chen",
            "WANDB_ENTITY": "secret-lab",
            "HF_TOKEN": "hf_leaked",
            "NCCL_IB_HCA": "mlx5_0",
            "PATH": "/home/chen/bin:/usr/bin",
        },
        "secrets": ["WANDB_API_KEY"],
    },
)
B = snapshot(
    "gpu-b",
    os={"hostname": "gpu-b", "user": "root", "uid": 0, "kernel": "5.4.90.1-chen", "machine": "x86_64"},
    network={
        "interfaces": [{"name": "eno1", "up": True, "addresses": [{"address": "10.20.144.5", "prefix": 24}]}],
        "resolves": {"gpu-a": ["10.20.144.4"]},
    },
)


def test_a_cluster_of_two() -> None:
    first, second = (msgspec.to_builtins(one) for one in redacted(A, B))
    values = {name: section["value"] for name, section in first["sections"].items()}
    others = {name: section["value"] for name, section in second["sections"].items()}
    assert (first["host"], second["host"]) == ("host1", "host2")
    assert values["os"]["hostname"] == "host1.example.com"
    assert (values["os"]["user"], values["os"]["uid"]) == ("user1", 1000)
    assert (others["os"]["user"], others["os"]["uid"], others["os"]["kernel"]) == ("root", 0, "5.4.90.1-user1")
    assert values["python"]["executable"] == "/home/user1/miniconda3/bin/python"
    assert values["python"]["path"] == ["/home/user1/lib", "/data/user1/x"]
    # The vocabulary of checks is not touched, whatever it looks like.
    assert values["packages"]["distributions"][0] == {
        "name": "chen",
        "version": "10.1.2.3",
        "location": "/home/user1/lib",
    }
    assert values["gpu"]["driver_version"] == "10.20.30.40"
    (gpu,) = values["gpu"]["gpus"]
    assert gpu["uuid"] == "GPU-00000000-0000-0000-0000-000000000001"
    assert gpu["processes"] == [{"pid": 1, "user": "user2", "command": "python train.py"}]
    network = values["network"]
    assert network["interfaces"][0]["addresses"] == [
        {"address": "192.0.2.1", "prefix": 24},
        {"address": "fe80::1", "prefix": 64},
    ]
    assert network["interfaces"][0]["mac"] == "00:00:5e:00:53:00"
    assert network["interfaces"][1]["name"] == network["routes"][0]["device"] == "enx00005e005300"
    assert network["resolves"] == {"host2": ["192.0.2.2"], "host1": ["127.0.1.1"]}
    assert network["routes"][0]["target"] == "host2"
    assert others["network"]["interfaces"][0]["addresses"] == [{"address": "192.0.2.2", "prefix": 24}]
    assert others["network"]["resolves"] == {"host1": ["192.0.2.1"]}
    assert values["disk"]["paths"][0]["source"] == "host4:/export/home"
    variables = values["environment"]["variables"]
    assert variables == {
        "MASTER_ADDR": "host2",
        "NCCL_SOCKET_IFNAME": "bond0",
        "CUDA_VISIBLE_DEVICES": "GPU-00000000-0000-0000-0000-000000000001",
        "http_proxy": "http://***@host5.example.com:3128",
        "no_proxy": "localhost,***,.example.com,192.0.2.2,198.51.100.0/24",
        "SLURM_JOB_USER": "***",
        "WANDB_ENTITY": "***",
        "NCCL_IB_HCA": "mlx5_0",
        "PATH": "/home/user1/bin:/usr/bin",
    }
    assert values["environment"]["secrets"] == []


def test_redacted_facts_are_facts(tmp_path: Path) -> None:
    hosts = redact({"gpu-a": HostFacts(A), "gpu-b": HostFacts(B)})
    assert list(hosts) == ["host1", "host2"]
    assert hosts["host1"].network.route("host2") is not None
    assert hosts["host1"].network.interface("bond0") is not None


def test_files_of_the_job_and_banners() -> None:
    entries = [{"name": name, "files": 1, "total_bytes": 2, "digest": "ab12"} for name in ("train", "mrs-smith.json")]
    path = {
        "path": "/data/li/notes", "role": "data", "at": "/data/li/notes", "kind": "folder", "digest": "cd34",
        "entries": entries, "unreadable": ["mrs-smith.json"],
        "model": {"weights": "bin", "missing": ["pytorch_model-00002-of-00002.bin"], "tokenizer_files": ["vocab.txt"]},
    }  # fmt: skip
    sections = {
        "os": {"user": "li"},
        "inputs": {"paths": [path]},
        "session": {"printed": "Welcome to the clinic's cluster", "shell": "/bin/bash", "login_session": "7"},
        "extensions": {"folder": "/home/li/.cache", "source": "nas-3:/home", "environment": "py311_cu128"},
    }
    (one,) = redacted(snapshot("gpu-a", **sections))
    values = {name: section.value for name, section in one.sections.items()}
    (found,) = values["inputs"]["paths"]
    assert found["at"] == found["path"] == "/data/user1/notes"
    assert [(entry["name"], entry["digest"]) for entry in found["entries"]] == [
        ("train", "digest2"),
        ("entry1.json", "digest2"),
    ]
    assert found["unreadable"] == ["entry1.json"] and found["digest"] == "digest1"
    assert found["model"] == path["model"]
    assert values["session"] == {"printed": "***", "shell": "/bin/bash", "login_session": "7"}
    assert values["extensions"]["source"] == "host2:/home"


def test_tables_of_adapters_and_files_of_launchers() -> None:
    gids = [
        {"index": 1, "gid": "fe80::3eec:efff:fe12:3456", "kind": "RoCE v2"},
        {"index": 3, "gid": "::ffff:10.20.144.4", "kind": "RoCE v2"},
    ]
    port = {"port": 1, "link_layer": "Ethernet", "gids": gids}
    file = {"path": "/home/li/.deepspeed_env", "reader": "deepspeed", "secrets": ["LI_TOKEN"]}
    nic = {"name": "enx3cecef123456", "up": True, "master": "bond0", "kind": "vlan", "duplex": "full"}
    sections = {
        "os": {"user": "li"},
        "infiniband": {"devices": [{"name": "mlx5_0", "ports": [port]}]},
        "environment": {"files": [file]},
        "network": {"interfaces": [nic], "firewalls": ["ufw"]},
        "nccl": {"copies": [{"path": "/usr/lib/x", "package": "libnccl2 2.18.1-1+cuda12.1", "manager": "deb"}]},
    }
    (one,) = redacted(snapshot("gpu-a", **sections))
    values = {name: section.value for name, section in one.sections.items()}
    assert [row["gid"] for row in values["infiniband"]["devices"][0]["ports"][0]["gids"]] == [
        "fe80::1",
        "::ffff:192.0.2.1",
    ]
    assert values["environment"]["files"] == [{**file, "path": "/home/user1/.deepspeed_env", "secrets": []}]
    assert values["network"]["interfaces"][0]["master"] == "bond0"
    assert values["nccl"]["copies"][0]["package"] == "libnccl2 2.18.1-1+cuda12.1"


def test_hosts_that_differ_by_case_alone_both_stay() -> None:
    assert len(redact({"a1": HostFacts(snapshot("a1")), "A1": HostFacts(snapshot("A1"))})) == 2


def test_a_host_known_by_its_address() -> None:
    (one,) = redacted(snapshot("10.0.0.5", network={"resolves": {"10.0.0.5": ["10.0.0.5"]}, "interfaces": []}))
    assert one.host == "192.0.2.1"
    assert one.sections["network"].value["resolves"] == {"192.0.2.1": ["192.0.2.1"]}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("connect to 10.1.2.3:29500 failed", "connect to 192.0.2.1:29500 failed"),
        ("[fe80::1%eth0]:22", "[fe80::1%eth0]:22"),
        ("::ffff:10.1.2.3 and 10.1.2.3", "::ffff:192.0.2.1 and 192.0.2.1"),
        ("127.0.0.1 127.0.1.1 0.0.0.0 ::1 :: 255.255.255.255 224.0.0.1", None),
        ("libcudnn.so.9.5.1.17 and 2.18.1 and 12:30:59", None),
        ("c10::Error std::string", None),
        ("00000000:17:00.0", None),
        ("ff:ff:ff:ff:ff:ff 00:00:00:00:00:00", None),
        ("alice@corp.example wrote", "user@example.com wrote"),
        ("ghp_abcdefghijklmnopqrstuvwxyz0123", "***"),
        ("/home/alice/x and /Users/bob, not /homes/carol", "/home/user1/x and /Users/user2, not /homes/carol"),
        ("https://u:p@hub.corp/x", "https://***@host2.example.com/x"),
        ("localhost and root", None),
        (
            "80:00:02:08:fe:80:00:00:00:00:00:00:b8:ce:f6:03:00:aa:bb:cc",
            "80:00:00:00:fe:80:" + "00:" * 8 + "00:00:5e:00:53:00",
        ),
        (
            "GPU-5ca1ab1e-1234-5678-9abc-def012345678,MIG-5ca1ab1f",
            "GPU-" + "0" * 8 + "-0000" * 3 + "-000000000001,MIG-" + "0" * 8 + "-0000" * 3 + "-000000000002",
        ),
        ("", None),
    ],
)
def test_things_inside_texts(text: str, wanted: str | None) -> None:
    (one,) = redacted(Snapshot(host="q", sections={"os": Section(error=text)}))
    assert one.sections["os"].error == (text if wanted is None else wanted)


word = st.from_regex(r"q[a-z0-9]{1,6}(?:-[a-z0-9]{1,4})?z", fullmatch=True)
host_name = word | st.builds(lambda a, b: f"{a}.{b}.lan", word, word) | st.builds(str.upper, word)
user_name = st.from_regex(r"w[a-z0-9]{1,6}(?:[._-][a-z0-9]{1,4})?v", fullmatch=True) | st.just("\u5f20\u4e09w")
addresses4 = st.ip_addresses(v=4)
addresses6 = st.ip_addresses(v=6)


def private(address: IPv4Address | IPv6Address) -> bool:
    """An address that is somebody's: not one that stays, nor one that is a stand-in already."""
    if getattr(address, "ipv4_mapped", None) is not None:
        return False
    return not stays(address) and not any(
        address in network for network in RESERVED if network.version == address.version
    )


address = st.one_of(addresses4, addresses6).filter(private)
interface = st.one_of(
    st.builds(lambda a, p: ip_interface(f"{a}/{p}"), addresses4.filter(private), st.integers(8, 32)),
    st.builds(lambda a, p: ip_interface(f"{a}/{p}"), addresses6.filter(private), st.integers(16, 128)),
)
mac = st.binary(min_size=6, max_size=6).map(lambda raw: raw.hex(":"))


@st.composite
def clusters(draw: st.DrawFn) -> tuple[list[Snapshot], list[str], list[Any], list[str]]:
    """Snapshots with names, addresses and MACs in every kind of place, and what must not be left of them."""
    names = draw(st.lists(host_name, min_size=1, max_size=3, unique_by=str.lower))
    users = draw(st.lists(user_name, min_size=1, max_size=2, unique=True))
    held = draw(st.lists(interface, min_size=1, max_size=6))
    loose = draw(st.lists(address, max_size=3))
    macs = draw(st.lists(mac, min_size=1, max_size=2))
    user = st.sampled_from(users)
    one_of = st.sampled_from(names)
    found = []
    for name in names:
        rows = [{"address": str(one.ip), "prefix": one.network.prefixlen} for one in held]
        texts = [
            f"{draw(user)}@{draw(one_of)}: no route to {draw(st.sampled_from([*loose, held[0].ip]))}",
            f"ssh://{draw(one_of)}:22/data/{draw(user)}_models/{draw(one_of)}.log",
            f"({draw(user)})[{draw(one_of)}]",
        ]
        found.append(
            snapshot(
                name,
                os={"hostname": draw(one_of), "user": draw(user), "kernel": "6.1", "machine": "x86_64"},
                gpu={"gpus": [{"processes": [{"pid": 1, "user": one} for one in users]}]},
                python={"version": "3.11", "executable": f"/home/{draw(user)}/bin/python", "path": texts},
                network={
                    "interfaces": [{"name": "eno1", "up": True, "addresses": rows, "mac": draw(st.sampled_from(macs))}],
                    "resolves": {draw(one_of): [str(one) for one in loose]},
                },
                disk={"paths": [{"path": f"/home/{draw(user)}", "source": f"{draw(one_of)}:/x"}]},
                environment={"variables": {"MASTER_ADDR": draw(one_of), "NCCL_X": draw(st.sampled_from(texts))}},
            )
        )
    return found, [*names, *users], [*loose, *(one.ip for one in held)], macs


@settings(max_examples=150)
@given(clusters())
def test_no_name_and_no_address_survives(cluster: tuple[list[Snapshot], list[str], list[Any], list[str]]) -> None:
    before, names, addresses, macs = cluster
    text = msgspec.json.encode(redacted(*before)).decode()
    for name in names:
        assert not re.search(rf"(?<![^\W_]){re.escape(name)}(?![^\W_])", text, re.I), name
    left = re.findall(r"[0-9A-Fa-f:.]*[:.][0-9A-Fa-f:.]*", text)
    kept = {parsed for token in left if (parsed := parse(token)) is not None}
    real = {one for one in addresses if not one.is_link_local}
    assert not kept & real
    assert not [one for one in macs if one in text and set(one) - set("0f:")]


def parse(token: str) -> IPv4Address | IPv6Address | None:
    for candidate in (token, token.strip(":"), token.strip(".")):
        try:
            return ip_address(candidate)
        except ValueError:
            continue
    return None


@settings(max_examples=150)
@given(clusters())
def test_what_holds_between_addresses_holds_between_their_stand_ins(
    cluster: tuple[list[Snapshot], list[str], list[Any], list[str]],
) -> None:
    before, _, _, _ = cluster
    after = redacted(*before)

    def rows(one: Snapshot) -> list[Any]:
        held = one.sections["network"].value["interfaces"][0]["addresses"]
        return [ip_interface(f"{row['address']}/{row['prefix']}") for row in held]

    pairs = list(zip((r for s in before for r in rows(s)), (r for s in after for r in rows(s)), strict=True))
    for one, its in pairs:
        assert its.version == one.version and its.ip.is_link_local == one.ip.is_link_local
        for other, its_other in pairs:
            assert (one.ip == other.ip) == (its.ip == its_other.ip)
            if one.version == other.version and other.network.prefixlen < other.max_prefixlen:
                assert (one.ip in other.network) == (its.ip in its_other.network), (one, other, its, its_other)


@settings(max_examples=300)
@given(st.lists(address | st.ip_addresses(), max_size=30), st.lists(interface, max_size=8))
def test_the_plan_of_addresses(addresses: list[Any], interfaces: list[Any]) -> None:
    networks = [one.network for one in interfaces]
    plan = AddressPlan([*addresses, *(one.ip for one in interfaces)], networks)
    stand_ins = {one: plan.address(one) for one in addresses}
    moved = {one: its for one, its in stand_ins.items() if one != its}
    assert len(set(moved.values())) == len(moved)
    for one, its in stand_ins.items():
        assert stays(one) == stays(its) or one == its
        if stays(one):
            assert its == one
        elif one.is_link_local:
            assert its.is_link_local
        else:
            assert any(its in network for network in RESERVED if network.version == its.version)
        for network in networks:
            if network.version == one.version and plan.network(network) is not None and not stays(one):
                assert (one in network) == (its in plan.network(network))


def test_networks_within_networks() -> None:
    networks = [ip_network(text) for text in ("10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "172.17.0.0/16")]
    inside = [ip_address(text) for text in ("10.9.9.9", "10.1.9.9", "10.1.2.9", "172.17.0.1", "8.8.8.8")]
    plan = AddressPlan(inside, networks)
    for network in networks:
        stand_in = plan.network(network)
        assert stand_in is not None
        assert [one in network for one in inside] == [plan.address(one) in stand_in for one in inside]


def test_a_large_network_keeps_all_its_hosts_apart() -> None:
    network = ip_network("10.0.0.0/16")
    hosts = [network[number] for number in range(1, 3000)]
    plan = AddressPlan(hosts, [network])
    assert len({plan.address(host) for host in hosts}) == len(hosts)
    stand_in = plan.network(network)
    assert stand_in is not None and stand_in.prefixlen == 20


def test_more_networks_than_there_are_documentation_ranges() -> None:
    networks = [ip_network(f"10.{number // 200}.{number % 200}.0/24") for number in range(2000)]
    plan = AddressPlan([network[7] for network in networks], networks)
    assert len({plan.network(network) for network in networks}) == 2000


@given(st.lists(st.text(max_size=20)), st.lists(st.text(max_size=20)))
def test_any_text_may_be_a_name(hosts: list[str], users: list[str]) -> None:
    names = Names()
    names.hosts(hosts)
    names.users(users)
    for name in names.inside_texts():
        assert names.get(name)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=10,
    )
)
def test_snapshots_of_any_shape_can_be_redacted(value: Any) -> None:
    names = ("os", "network", "environment", "disk", "gpu")
    assume(value is not None)
    redacted(Snapshot(host="a", sections={name: Section(value=value) for name in names}))
    shaped = {
        "interfaces": value,
        "addresses": value,
        "routes": value,
        "variables": value,
        "gpus": value,
        "resolves": value,
    }
    redacted(Snapshot(host="a", sections={name: Section(value=shaped) for name in names}))


def test_the_composed_clusters_can_be_shared() -> None:
    folder = Path(__file__).parent.parent / "snapshots/composed/xuanyuan"
    hosts = redact(load(folder))
    assert list(hosts) == ["host1", "host2"]
    for host in hosts.values():
        for name in HostFacts.sections():
            section = host.snapshot.sections.get(name)
            if section is not None and section.error is None:
                getattr(host, name)


def test_addresses_on_the_pci_bus_are_no_addresses_of_hosts() -> None:
    bus = {
        "gpus": [{"address": "0000:3b:00.0", "driver": "nvidia", "bridges": ["0000:3a:01.0"], "iommu": "DMA-FQ"}],
        "bridges": [{"address": "0000:3a:01.0", "acs": 29}],
        "nvswitches": ["0000:c1:00.0"],
        "kernel_parameters": ["iommu=pt"],
    }
    text = "Timeout, host gpu-a, GPU-5ca1ab1e-1234-5678-9abc-def012345678"
    log = {"source": "/dev/kmsg", "xids": [{"address": "0000:3b:00", "code": 79, "text": text}]}
    (one,) = redacted(snapshot("gpu-a", pci=bus, kernel_log=log))
    assert one.sections["pci"].value == bus
    (xid,) = one.sections["kernel_log"].value["xids"]
    assert (xid["address"], xid["code"]) == ("0000:3b:00", 79)
    assert xid["text"] == "Timeout, host host1, GPU-00000000-0000-0000-0000-000000000001"
