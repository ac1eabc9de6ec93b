"""The kernel's own answers about addresses, ways and rules, beside what `ip` makes of the same questions."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsdoctor.hosts import probe

SETTING = """
ip link set lo up
ip link add eno1 type veth peer name far
ip link add tun0 type veth peer name far2
ip link set eno1 up; ip link set far up; ip link set tun0 up; ip link set far2 up
ip addr add 10.20.144.4/24 dev eno1
ip addr add 10.20.144.9/24 dev eno1 label eno1:1
ip addr add 10.8.0.6 peer 10.8.0.5/32 dev tun0
ip addr add 2001:db8::5/64 dev eno1 nodad
ip route add 10.9.0.0/16 via 10.20.144.1
ip route add 192.0.2.0/24 via inet6 fe80::1 dev eno1
ip route add unreachable 198.51.100.1
ip route add blackhole 198.51.100.2
ip route add prohibit 198.51.100.3
ip -6 route add 2001:db8:9::/48 via 2001:db8::1
ip -6 route add unreachable 2001:db8:a::/48
"""
WANTED = [
    "10.20.144.7",
    "10.9.9.9",
    "10.20.144.4",
    "10.8.0.5",
    "192.0.2.9",
    "198.51.100.1",
    "198.51.100.2",
    "198.51.100.3",
    "203.0.113.1",
    "224.0.0.1",
    "10.20.144.255",
    "2001:db8::5",
    "2001:db8::7",
    "2001:db8:9::1",
    "2001:db8:a::1",
    "2001:db8:b::1",
    "::1",
    "127.0.0.1",
]
ASKED = """
import json, sys
from dsdoctor.hosts.probe import addresses, routes
wanted = sys.argv[1:]
held = {name: rows for name, rows in addresses.addresses().items()}
ways = routes.routes(wanted, {address: [address] for address in wanted}, {})
older = addresses.kernel_addresses()
print(json.dumps({"held": held, "ways": ways, "rules": routes.policy_rules(), "older": older}))
"""


def apart(setting: str) -> tuple[dict[str, Any], Any]:
    """What the probe and what `ip` say in a network namespace with this setting."""
    if os.geteuid() or not all(map(shutil.which, ("unshare", "ip"))):
        pytest.skip("needs root, unshare and ip: a network of its own")
    ip = [f"ip route get {address} 2>&1 | tr '\\n' ' '; echo" for address in WANTED]
    script = f"set -e\n{setting}\nset +e\n{sys.executable} -c '{ASKED}' {' '.join(WANTED)}\nip -j addr\n" + "\n".join(
        ip
    )
    done = subprocess.run(
        ["unshare", "-n", "sh", "-c", script], capture_output=True, text=True, timeout=30, cwd=Path(__file__).parents[2]
    )
    if done.returncode and "nknown device type" in done.stderr:
        pytest.skip(done.stderr.strip())
    told, held, *ways = done.stdout.splitlines()
    return json.loads(told), (json.loads(held), dict(zip(WANTED, ways, strict=False)))


@pytest.fixture(scope="module")
def both() -> tuple[dict[str, Any], Any]:
    return apart(SETTING)


def test_addresses_as_ip_has_them(both: tuple[dict[str, Any], Any]) -> None:
    told, (held, _) = both
    wanted = {
        link["ifname"]: [(row["local"], row["prefixlen"], row["family"], row["scope"]) for row in link["addr_info"]]
        for link in held
    }
    found = {name: [tuple(row.values()) for row in rows] for name, rows in told["held"].items()}
    assert found == {name: rows for name, rows in wanted.items() if rows}
    assert ("10.8.0.6", 32, "inet", "global") in found["tun0"]
    assert [row[0] for row in found["eno1"]][:2] == ["10.20.144.4", "10.20.144.9"]
    older = {(name, row["address"], row["prefix"]) for name, rows in told["older"].items() for row in rows}
    assert older == {(name, row[0], row[1]) for name, rows in found.items() for row in rows}


def test_ways_as_ip_has_them(both: tuple[dict[str, Any], Any]) -> None:
    told, (_, printed) = both
    assert [way["target"] for way in told["ways"]] == WANTED
    for way in told["ways"]:
        line = printed[way["address"]]
        if "RTNETLINK answers: " in line:
            assert way["error"] == line.partition("answers: ")[2].strip(), line
            continue
        words = dict(re.findall(r"(dev|src|via(?: inet6)?) (\S+)", line))
        assert way["device"] == words.get("dev"), line
        assert way["source"] == words.get("src"), line
        assert way["via"] == words.get("via", words.get("via inet6")), line
        assert way["local"] == line.startswith("local "), line
        assert way.get("error") == ("the route is of type unreachable" if line.startswith("unreachable") else None)
    assert {way["address"] for way in told["ways"] if "error" in way} >= {"198.51.100.1", "203.0.113.1"}


@pytest.mark.parametrize(
    ("rule", "wanted"),
    [
        ("true", 0),
        ("ip rule add from 192.0.2.5 lookup 10001", 1),
        ("ip rule add fwmark 0x5 lookup main", 1),
        ("ip rule add lookup main suppress_prefixlength 0; ip rule add iif lo lookup 7", 2),
        ("ip rule add from all lookup main pref 99", 0),
        ("ip rule add not from 192.0.2.5 lookup main", 1),
        ("ip rule del pref 0; ip rule del pref 32766; ip rule del pref 32767", None),
    ],
)
def test_rules_beyond_those_of_every_linux(rule: str, wanted: int | None) -> None:
    assert apart(f"ip link set lo up; {rule}")[0]["rules"] == wanted


def test_listening_ports_as_proc_has_them() -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("::1", 0), family=socket.AF_INET6) as two:
        ports = {one.getsockname()[1], two.getsockname()[1]}
        with socket.create_connection(one.getsockname()) as connection:
            asked = probe.netlink.listening_ports()
            own = connection.getsockname()[1]
        texts = [Path(f"/proc/net/{name}").read_text() for name in ("tcp", "tcp6")]
        assert probe.network.listening("\n".join(texts)) == asked
        assert ports <= set(asked) and own not in asked


def test_without_netlink_older_ways_of_the_kernel_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(self: Any, protocol: int = 0) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(probe.netlink.Netlink, "__init__", refused)
    assert {"127.0.0.1", 8} <= set(probe.addresses.addresses()["lo"][0].values())
    resolves, errors = probe.names.resolve(["127.0.0.1", "no.such.invalid"], 5)
    local, unknown = probe.routes.routes(["127.0.0.1", "no.such.invalid"], resolves, errors)
    assert (local["device"], local["source"], local["local"]) == ("lo", "127.0.0.1", True)
    assert unknown["address"] == "" and unknown["error"]
    assert probe.routes.policy_rules() is None
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert server.getsockname()[1] in probe.network.ports_in_use()


@given(st.binary(max_size=80))
def test_no_answer_of_a_kernel_makes_it_fail_otherwise(message: bytes) -> None:
    for read in (
        lambda raw: probe.routes.described_route(raw, {}),
        probe.routes.usual_rule,
        lambda raw: probe.addresses.held_by([raw], {0: "a", 1: "b"}),
    ):
        with contextlib.suppress(*probe.netlink.UNASKED):
            read(message)


def test_an_interface_is_asked_for_its_name_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    name = probe.routes.interface_name
    monkeypatch.setattr(probe.routes, "interface_name", lambda number: asked.append(number) or name(number))
    targets = [f"127.0.4.{number}" for number in range(1, 10)]
    ways = probe.routes.routes(targets, {target: [target] for target in targets}, {})
    assert {way["device"] for way in ways} == {"lo"}
    assert len(asked) == 1


def test_a_kernel_that_says_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair()
    monkeypatch.setattr(probe.netlink, "SECONDS", 1)
    monkeypatch.setattr(probe.netlink.socket, "socket", lambda *_: ours)
    with theirs, probe.netlink.Netlink() as kernel, pytest.raises(OSError):
        list(kernel.ask(26, 0, b""))
