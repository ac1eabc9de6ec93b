"""Whole clusters before all checks at once: exactly what is true of them, as they are and on a bad day."""

from __future__ import annotations

from pathlib import Path

import pytest

from dsdoctor.checks import run_checks
from dsdoctor.checks.casefile import Case
from dsdoctor.cluster import Cluster, HostEntry, Member, Reach
from dsdoctor.hosts.snapshots import load
from tests.checks.building import as_text, cluster_of

RECORDED = Path(__file__).parent.parent / "snapshots" / "recorded"
XUANYUAN = [("kernel-too-old", "info", ("gpu-a", "gpu-b")), ("mixed-gpus", "info", ("gpu-a", "gpu-b"))]

HEALTHY = {
    "xuanyuan": XUANYUAN,
    "lab4090": [],
    "autodl": [],
    "a100pair": [],
    "mixed": [("mixed-gpus", "info", ("k1", "k2", "k3"))],
}

# What the notes tell of these clusters, and for the two without notes what happens to such ones.
BAD_DAYS = (
    (
        Case(
            name="xuanyuan",
            why="A3, A5, A6, B1, B12, D4: a host renamed, another NCCL first, one host's NIC named to all, no driver",
            expect=(),
            cluster="xuanyuan",
            change={
                "*": {"environment": {"variables": {"NCCL_SOCKET_IFNAME": "bond0"}}},
                "gpu-a": {
                    "nccl": {
                        "loaded": "/usr/lib64/libnccl.so.2",
                        "copies": [
                            {"path": "/usr/lib64/libnccl.so.2", "version": "2.14.3", "cuda": "11.7", "source": "system"}
                        ],
                    }
                },
                "gpu-b": {
                    "gpu": {"status": "driver-not-loaded", "gpus": [], "driver_version": None},
                    "driver": {"loaded": False, "version": None, "module_files": []},
                    "limits": {"nofile": {"soft": 1024, "hard": 4096}},
                    "network": {"resolves": {"gpu-a": []}},
                },
            },
            entries={"gpu-a": {"slots": 4}, "gpu-b": {"slots": 2}},
        ),
        [
            ("driver-not-loaded", "error", ("gpu-b",)),
            ("nccl-differs-between-hosts", "error", ("gpu-a", "gpu-b")),
            ("nccl-differs-from-torch", "error", ("gpu-a",)),
            ("slots-exceed-gpus", "error", ("gpu-a",)),
            ("socket-ifname-missing", "error", ("gpu-b",)),
            ("ssh-by-name", "error", ("gpu-b",)),
            ("kernel-too-old", "info", ("gpu-a", "gpu-b")),
            ("low-open-files", "info", ("gpu-b",)),
        ],
    ),
    (
        Case(
            name="lab4090",
            why="A1, A7, B2, B5: peer to peer left on, a misspelt and an old name, an older toolkit, no GPU library",
            expect=(),
            cluster="lab4090",
            change={
                "lab": {
                    "environment": {
                        "variables": {
                            "NCCL_P2P_DISABLE": "0",
                            "NCCL_IB_DISABL": "1",
                            "NCCL_ASYNC_ERROR_HANDLING": "1",
                        }
                    },
                    "bitsandbytes": {"libraries": ["libbitsandbytes_cpu.so"]},
                    "cuda": {"nvcc_version": "11.8"},
                }
            },
        ),
        [
            ("bitsandbytes-cpu-build", "warning", ("lab",)),
            ("p2p-unavailable", "warning", ("lab",)),
            ("unknown-env-var", "warning", ("lab",)),
            ("cuda-toolkit-differs", "info", ("lab",)),
            ("unknown-env-var", "info", ("lab",)),
        ],
    ),
    (
        Case(
            name="autodl",
            why="A1, B7, B8, D9: packages for another torch, docker's own 64 MiB, peer to peer left on",
            expect=(),
            cluster="autodl",
            change={
                "autodl": {
                    "shm": {"total_bytes": 64 << 20, "free_bytes": 64 << 20},
                    "packages": {
                        "distributions": [
                            {"name": "torch", "version": "2.1.2+cu121"},
                            {"name": "deepspeed", "version": "0.15.3"},
                            {"name": "xformers", "version": "0.0.28.post2"},
                            {"name": "transformers", "version": "4.36.2"},
                            {"name": "accelerate", "version": "0.23.0"},
                            {"name": "numpy", "version": "1.26.4"},
                            {"name": "ninja", "version": "1.11.1"},
                            {"name": "packaging", "version": "23.2"},
                            {"name": "nvidia-nccl-cu12", "version": "2.18.1"},
                        ]
                    },
                    "deepspeed": {"version": "0.15.3"},
                    "requirements": {"packages": {"xformers": {"requires": ["numpy", "torch==2.4.1"]}}},
                    "environment": {"variables": {"NCCL_P2P_DISABLE": "0"}},
                }
            },
        ),
        [
            ("low-shm", "error", ("autodl",)),
            ("broken-requirements", "warning", ("autodl",)),
            ("known-bad-versions", "warning", ("autodl",)),
            ("p2p-unavailable", "warning", ("autodl",)),
        ],
    ),
    (
        Case(
            name="a100pair",
            why="the second host loses its fabric manager, a link, half a slot and a row of memory, and was upgraded",
            expect=(),
            cluster="a100pair",
            change={
                "n2": {
                    "gpu": {"gpus": {3: {"pcie_width": 8}, 5: {"nvlinks": 11}, 6: {"row_remap_pending": True}}},
                    "packages": {"distributions": {9: {"version": "4.44.0"}}},
                    "driver": {"fabric_manager_running": False},
                }
            },
        ),
        [
            ("fabric-manager-down", "error", ("n2",)),
            ("nvlink-down", "warning", ("n2",)),
            ("packages-differ", "warning", ("n1", "n2")),
            ("pcie-link-degraded", "warning", ("n2",)),
            ("gpu-ecc-errors", "info", ("n2",)),
        ],
    ),
    (
        Case(
            name="mixed",
            why="a torch without code for the V100, Debian's 127.0.1.1, peer to peer left on, two cards forgotten",
            expect=(),
            cluster="mixed",
            change={
                "k1": {"network": {"resolves": {"k1": ["127.0.1.1"]}}},
                "k2": {"environment": {"variables": {"NCCL_P2P_DISABLE": "0"}}},
                "k3": {"torch": {"arch_list": ["sm_75", "sm_80", "sm_90"]}},
            },
            entries={"k3": {"slots": 2}},
        ),
        [
            ("torch-lacks-gpu-arch", "error", ("k3",)),
            ("master-resolves-to-loopback", "warning", ("k1",)),
            ("p2p-unavailable", "warning", ("k2",)),
            ("idle-gpus", "info", ("k3",)),
            ("mixed-gpus", "info", ("k1", "k2", "k3")),
        ],
    ),
)

REAL = {
    "debian12-cpu": [],
    "debian12-train": [],
    "debian12-python38": [],
    # Two virtual machines as QEMU makes them: one address, one hardware address, and Debian's line in /etc/hosts.
    "debian13-debian11-qemu": [
        ("host-twice", "error", ("host1", "host2")),
        ("ssh-by-name", "error", ("host2",)),
        ("master-resolves-to-loopback", "warning", ("host1",)),
        ("own-name-is-loopback", "warning", ("host2",)),
        ("packages-differ", "warning", ("host1", "host2")),
        ("python-differs", "warning", ("host1", "host2")),
        ("low-open-files", "info", ("host1",)),
        ("low-open-files", "info", ("host2",)),
    ],
    "debian12-namespaces": [("low-shm", "warning", ("host2",)), ("low-open-files", "info", ("host2",))],
}


def found(cluster: Cluster | None) -> list[tuple[str, str, tuple[str, ...]]]:
    outcome = run_checks(cluster)
    assert not outcome.crashed, outcome.crashed[0].traceback
    return [(finding.name, finding.severity.value, finding.hosts) for finding in outcome.findings]


def test_every_composed_cluster_has_its_list() -> None:
    composed = {path.name for path in (RECORDED.parent / "composed").iterdir()}
    assert composed == set(HEALTHY) == {case.cluster for case, _ in BAD_DAYS}
    assert {path.name for path in RECORDED.iterdir()} == set(REAL)


@pytest.mark.parametrize("folder", HEALTHY)
def test_as_it_is(folder: str) -> None:
    assert found(cluster_of(Case(name=folder, why="as it is", expect=(), cluster=folder))) == HEALTHY[folder]


@pytest.mark.parametrize(("case", "expected"), [pytest.param(*pair, id=pair[0].name) for pair in BAD_DAYS])
def test_on_a_bad_day(case: Case, expected: list[tuple[str, str, tuple[str, ...]]]) -> None:
    cluster = cluster_of(case)
    assert found(cluster) == expected, as_text(run_checks(cluster).findings)


@pytest.mark.parametrize("folder", REAL)
def test_machines_that_were_at_hand(folder: str) -> None:
    hosts = load(RECORDED / folder)
    assert all(facts.snapshot.origin.startswith("recorded") for facts in hosts.values())
    members = [Member(HostEntry(name, slots=1), Reach(ok=True), facts) for name, facts in hosts.items()]
    assert found(Cluster(tuple(members))) == REAL[folder]
