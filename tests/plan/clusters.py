"""Clusters for the tests of the plan, composed by hand after the seeds' hosts (no machine like these was at hand)."""

from __future__ import annotations

from typing import Any

from dsdoctor.cluster import Cluster, HostEntry, Member, Reach
from dsdoctor.facts import HostFacts, Section, Snapshot


def host(name: str, slots: int = 1, *, entry: dict[str, Any] | None = None, **sections: Any) -> Member:
    """A member whose facts are these sections."""
    base: dict[str, Any] = {
        "python": {"version": "3.10.13", "executable": "/opt/env/bin/python"},
        "cpu": {"cores": 8},
        "environment": {"variables": {"HOME": f"/home/{name}"}},
        "torch": {"version": "2.1.2+cu121"},
        "gpu": {"status": "no-library"},
        "infiniband": {"devices": []},
    }
    merged = {**base, **sections}
    snapshot = Snapshot(
        host=name,
        origin="composed for a test",
        sections={key: Section(value=value) for key, value in merged.items() if value is not None},
    )
    return Member(HostEntry(name, slots, **(entry or {})), Reach(ok=True), HostFacts(snapshot))


def network(device: str, address: str, routes: dict[str, tuple[str, str]], **more: Any) -> dict[str, Any]:
    """A network section: one interface, and for every other host the device and the address it is reached by."""
    return {
        "interfaces": [{"name": device, "up": True, "addresses": [{"address": address, "prefix": 24}]}],
        "routes": [
            {"target": target, "address": there, "device": by, "source": address}
            for target, (by, there) in routes.items()
        ],
        **more,
    }


def gpus(name: str, count: int, capability: tuple[int, int], p2p: int = 0) -> dict[str, Any]:
    """A gpu section: so many equal cards, each pair with this P2P status."""
    return {
        "status": "ok",
        "gpus": [{"index": index, "name": name, "compute_capability": capability} for index in range(count)],
        "p2p_read": [[0 if a == b else p2p for b in range(count)] for a in range(count)],
    }


def two_hosts(**second: Any) -> Cluster:
    """The seeds' two hosts: `a` with two A100 on bond0, `b` with two V100 on eno1."""
    a = host(
        "a",
        2,
        network=network("bond0", "192.0.2.4", {"b": ("bond0", "192.0.2.5")}, listening=[22, 29500]),
        gpu=gpus("NVIDIA A100-PCIE-40GB", 2, (8, 0)),
    )
    sections: dict[str, Any] = {
        "network": network("eno1", "192.0.2.5", {"a": ("eno1", "192.0.2.4")}),
        "gpu": gpus("Tesla V100-PCIE-32GB", 2, (7, 0)),
    }
    return Cluster((a, host("b", 2, **{**sections, **second})))


def one_host(**sections: Any) -> Cluster:
    """This machine, two ranks."""
    here = {"network": network("eth0", "198.51.100.7", {}), **sections}
    return Cluster((host("localhost", 2, entry={"local": True}, **here),))
