"""What is planted on a host is really there, seen the way a job would see it."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cluster.little_cluster import LittleCluster
from tests.cluster.plant import (
    NCCL_FILE,
    SITE_PACKAGES,
    plant_duplicate_nccl,
    plant_environment,
    plant_infiniband,
    plant_loopback_name,
)

NCCL = """
import ctypes, json, importlib.metadata as m
owners = {d.metadata["Name"]: d.version for d in m.distributions()
          if any(str(f).endswith("libnccl.so.2") for f in d.files or ())}
path = m.distribution("nvidia-nccl-cu11").locate_file("nvidia/nccl/lib/libnccl.so.2")
version = ctypes.c_int()
ctypes.CDLL(str(path)).ncclGetVersion(ctypes.byref(version))
print(json.dumps([owners, version.value, b"NCCL version 2.14.3+cuda11.7" in open(path, "rb").read()]))
"""


def test_two_wheels_own_one_nccl(restored: LittleCluster, fake_nvml: Path) -> None:
    node0, node1 = restored.hosts
    plant_duplicate_nccl(node0)
    assert json.loads(node0.python(NCCL).stdout) == [
        {"nvidia-nccl-cu12": "2.18.1", "nvidia-nccl-cu11": "2.14.3"},
        21403,
        True,
    ]
    assert not node1.exists(f"{SITE_PACKAGES}/{NCCL_FILE}")
    assert not Path(SITE_PACKAGES, NCCL_FILE).exists()


def test_variables_reach_commands_through_ssh(restored: LittleCluster) -> None:
    plant_environment(restored["node0"], {"NCCL_SOCKET_IFNAME": "bond0", "NCCL_DEBG": 'IN\'FO "x" $HOME'})
    plant_environment(restored["node0"], {"NCCL_SOCKET_IFNAME": "eno1"})
    seen = restored.head.ssh("node0", "printenv NCCL_SOCKET_IFNAME NCCL_DEBG").stdout
    assert seen == 'eno1\nIN\'FO "x" $HOME\n'
    assert restored.head.ssh("node1", "printenv NCCL_SOCKET_IFNAME", check=False).stdout == ""


def test_own_name_on_loopback(restored: LittleCluster) -> None:
    plant_loopback_name(restored["node0"])
    resolve = "import socket; print(socket.gethostbyname('node0'), socket.gethostbyname('node1'))"
    assert restored["node0"].python(resolve).stdout == "127.0.1.1 10.77.0.11\n"
    assert restored["node1"].python(resolve).stdout == "10.77.0.10 10.77.0.11\n"


def test_infiniband(restored: LittleCluster) -> None:
    node0, node1 = restored.hosts
    plant_infiniband(node0)
    plant_infiniband(node0, "mlx5_1", active=False)
    assert node0.run(["ls", "/sys/class/infiniband"]).stdout.split() == ["mlx5_0", "mlx5_1"]
    assert node0.read("/sys/class/infiniband/mlx5_0/ports/1/state") == "4: ACTIVE\n"
    assert node0.read("/sys/class/net/bond0/operstate") == "up\n"
    assert not node1.exists("/sys/class/infiniband")
