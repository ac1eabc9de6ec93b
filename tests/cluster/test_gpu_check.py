"""`dsdoctor check` over real hosts with stand-in GPUs that are ill: from NVML's answers to the findings, end to end.

No real card was asked; see :mod:`tests.cluster.fakegpu` for what the stand-in is.
"""

from __future__ import annotations

import pytest

from tests.cluster.commands import Head
from tests.cluster.little_cluster import LittleCluster

OURS = (
    "gpu-busy", "gpu-compute-mode", "gpu-ecc-errors", "gpu-lost", "gpu-memory-differs", "gpu-throttled", "mig-enabled",
    "mixed-gpus", "nvlink-down", "nvml-mismatch", "p2p-unavailable", "pcie-link-degraded", "persistence-off",
    "idle-gpus", "gpu-power-limits-differ", "fabric-manager-down",
)  # fmt: skip
SELECTED = tuple(word for name in OURS for word in ("--select", name))


@pytest.fixture
def head(restored: LittleCluster) -> Head:
    return Head(restored)


def found(head: Head) -> dict[str, list[str]]:
    """The findings' messages with their hosts, by name."""
    report = head.report("check", "--hostfile", "hostfile", *SELECTED)
    assert report["counts"]["crashed"] == 0, report["crashed"]
    said: dict[str, list[str]] = {}
    for finding in report["findings"]:
        said.setdefault(finding["name"], []).append(f"{'+'.join(finding['hosts'])}: {finding['message']}")
    return said


def healthy(*more: str) -> list[str]:
    return ["persistence 1", *more]


def test_healthy_cards_have_nothing_wrong(head: Head, fake_nvml: object) -> None:
    head.host.write("/root/lab/hostfile", "node0 slots=2\nnode1 slots=2\n")
    for name in ("node0", "node1"):
        head.cluster[name].install_fake_gpus("a100", {0: healthy(), 1: healthy()})
    assert found(head) == {}


def test_ill_cards_are_named_one_by_one(head: Head, fake_nvml: object) -> None:
    head.host.write("/root/lab/hostfile", "node0 slots=2\nnode1 slots=2\n")
    head.cluster["node0"].install_fake_gpus(
        "a100",
        {
            0: ["ecc_volatile_uncorrected 2", "throttle 0x40", "temperature 93", "width 4", "nvlinks_up 12"],
            1: ["remap_failed 1", "nvlinks_up 11", "used_mib 30000", "process 1 29000", *healthy()],
        },
    )
    head.cluster["node1"].install_fake_gpus(
        "a100",
        {
            0: healthy("compute_mode 2", "memory_mib 81920", "power_limit_mw 150000"),
            1: healthy("mig 1", "mig_instances 2"),
        },
    )
    said = found(head)
    assert {name: len(messages) for name, messages in said.items()} == {
        "gpu-busy": 1,
        "gpu-compute-mode": 1,
        "gpu-ecc-errors": 2,
        "gpu-memory-differs": 1,
        "gpu-power-limits-differ": 1,
        "gpu-throttled": 1,
        "mig-enabled": 1,
        "nvlink-down": 1,
        "pcie-link-degraded": 1,
        "persistence-off": 1,
    }
    assert "process 1" in said["gpu-busy"][0]
    assert "93 °C" in said["gpu-throttled"][0]
    assert said["nvlink-down"][0].startswith("node0: GPU 1 (NVIDIA A100-PCIE-40GB) has 11 NVLinks up")
    assert said["mig-enabled"][0].startswith("node1: ")


def test_lost_and_mixed_cards_and_4090_without_peer_to_peer(head: Head, fake_nvml: object) -> None:
    head.host.write("/root/lab/hostfile", "node0 slots=2\nnode1 slots=1\n")
    head.cluster["node0"].install_fake_gpus("rtx4090", {0: healthy(), 1: healthy()})
    head.cluster["node1"].install_fake_gpus("v100", {0: healthy(), 1: ["lost 1"]})
    said = found(head)
    assert set(said) == {"gpu-lost", "mixed-gpus", "p2p-unavailable"}
    assert said["gpu-lost"] == ["node1: GPU 1 does not answer: GPU is lost"]
    assert said["p2p-unavailable"][0].startswith("node0: GPU 0 and 1 (NVIDIA GeForce RTX 4090) cannot reach")
    head.cluster["node1"].install_fake_gpus("mismatch")
    assert set(found(head)) == {"nvml-mismatch", "p2p-unavailable"}
