"""The interface of each host, agreed on by both ends: two cards in one network, names that mislead, IPv6 alone."""

from __future__ import annotations

from typing import Any

import pytest

from dsdoctor.cluster import Cluster, Member
from dsdoctor.plan.model import LaunchPlan, PlanError
from tests.plan.clusters import gpus, host
from tests.plan.test_plan import made

Cards = dict[str, str]  # interface -> address/prefix
Routes = dict[str, tuple[str, str, str]]  # name -> address, interface, source


def member(name: str, cards: Cards, routes: Routes, **more: Any) -> Member:
    """A host with two GPUs, its interfaces and its routes."""
    interfaces: dict[str, dict[str, Any]] = {}
    for card, text in cards.items():
        held = [
            {"address": address, "prefix": int(prefix), "family": "inet6" if ":" in address else "inet"}
            for address, _, prefix in (each.partition("/") for each in text.split())
        ]
        interfaces[card] = {"name": card, "up": True, "addresses": held}
    known = [
        {"target": target, "address": address, "device": device, "source": source}
        for target, (address, device, source) in routes.items()
    ]
    section = {"interfaces": list(interfaces.values()), "routes": known}
    return host(name, 2, network=section, gpu=gpus("NVIDIA A100", 2, (8, 0)), **more)


def interfaces(planned: LaunchPlan) -> dict[str, str]:
    return {each.name: each.env["NCCL_SOCKET_IFNAME"].value for each in planned.hosts}


B = member("b", {"eno1": "192.0.2.5/24"}, {"a": ("192.0.2.4", "eno1", "192.0.2.5")})


def test_a_master_with_two_cards_in_one_network_takes_the_one_that_answers_leave_by() -> None:
    cards = {"eth0": "192.0.2.3/24", "eth1": "192.0.2.4/24"}
    a = member("a", cards, {"b": ("192.0.2.5", "eth0", "192.0.2.3")})
    planned = made(Cluster((a, B)))
    assert interfaces(planned) == {"a": "=eth0", "b": "=eno1"}
    assert planned.host("a").env["GLOO_SOCKET_IFNAME"].because.startswith("answers to the other hosts leave by eth0")
    assert planned.master_addr == "192.0.2.4", "where the ranks meet is what the others reach"
    assert planned.warnings == ()


def test_answers_that_leave_by_a_card_that_the_others_do_not_reach_are_only_said() -> None:
    cards = {"eth0": "198.51.100.3/24", "eth1": "192.0.2.4/24"}
    a = member("a", cards, {"b": ("192.0.2.5", "eth0", "198.51.100.3")})
    planned = made(Cluster((a, B)))
    assert interfaces(planned)["a"] == "=eth1"
    assert planned.warnings == ("a: answers to other hosts leave by eth0 although they arrive at eth1",)


def test_a_name_that_means_another_address_on_the_master_is_not_taken_for_the_way_back() -> None:
    """On a the name b is its address on another network; b's packets come from 192.0.2.5 all the same."""
    cards = {"eth1": "192.0.2.4/24", "ib0": "198.51.100.4/24"}
    a = member("a", cards, {"b": ("198.51.100.5", "ib0", "198.51.100.4")})
    planned = made(Cluster((a, B)))
    assert interfaces(planned) == {"a": "=eth1", "b": "=eno1"}
    assert planned.warnings == ()


def test_a_worker_whose_packets_carry_another_card_s_address_is_said() -> None:
    cards = {"eno1": "192.0.2.5/24", "eno2": "192.0.2.6/24"}
    b = member("b", cards, {"a": ("192.0.2.4", "eno1", "192.0.2.6")})
    a = member("a", {"eth1": "192.0.2.4/24"}, {"b": ("192.0.2.6", "eth1", "192.0.2.4")})
    assert made(Cluster((a, b))).warnings == ("b: packets to 192.0.2.4 leave by eno1 with an address of eno2",)


def test_workers_that_reach_each_other_by_another_card_are_named() -> None:
    a = member(
        "a",
        {"eth1": "192.0.2.4/24"},
        {"b": ("192.0.2.5", "eth1", "192.0.2.4"), "c": ("192.0.2.6", "eth1", "192.0.2.4")},
    )
    cards = {"eno1": "192.0.2.5/24", "tun0": "203.0.113.5/24"}
    b = member("b", cards, {"a": ("192.0.2.4", "eno1", "192.0.2.5"), "c": ("203.0.113.6", "tun0", "203.0.113.5")})
    c = member("c", {"eno1": "192.0.2.6/24"}, {"a": ("192.0.2.4", "eno1", "192.0.2.6")})
    assert made(Cluster((a, b, c))).warnings == ("b: packets to c leave by tun0, and the job's interface is eno1",)


def test_hosts_named_by_addresses() -> None:
    a = member("192.0.2.4", {"eth1": "192.0.2.4/24"}, {"192.0.2.5": ("192.0.2.5", "eth1", "192.0.2.4")})
    b = member("192.0.2.5", {"eno1": "192.0.2.5/24"}, {"192.0.2.4": ("192.0.2.4", "eno1", "192.0.2.5")})
    assert interfaces(made(Cluster((a, b)))) == {"192.0.2.4": "=eth1", "192.0.2.5": "=eno1"}


@pytest.mark.parametrize("both", [False, True])
def test_ipv6_alone_and_beside_ipv4(both: bool) -> None:
    more = " 192.0.2.4/24" if both else ""
    a = member("a", {"eth1": f"2001:db8::4/64{more}"}, {"b": ("2001:db8::5", "eth1", "2001:db8::4")})
    b = member("b", {"eno1": "2001:db8::5/64"}, {"a": ("2001:db8::4", "eno1", "2001:db8::5")})
    planned = made(Cluster((a, b)))
    assert planned.master_addr == "2001:db8::4"
    assert interfaces(planned) == {"a": "=eth1", "b": "=eno1"}
    families = {each.env["NCCL_SOCKET_FAMILY"].value for each in planned.hosts if "NCCL_SOCKET_FAMILY" in each.env}
    assert families == ({"AF_INET6"} if both else set())
    assert planned.warnings == ()


def test_a_master_that_others_take_for_themselves_is_refused() -> None:
    a = member("a", {"eth1": "192.0.2.4/24"}, {"b": ("192.0.2.5", "eth1", "192.0.2.4")})
    b = member("b", {"eno1": "192.0.2.5/24"}, {"a": ("127.0.1.1", "lo", "127.0.0.1")})
    with pytest.raises(PlanError, match=r"do not reach a by one address that it holds \(b: 127\.0\.1\.1"):
        made(Cluster((a, b)))
