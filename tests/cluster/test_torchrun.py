"""torchrun over two hosts of the little cluster: it works, and with a NIC name of the other host it really fails."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.little_cluster import LittleCluster
from tests.cluster.processes import HostProcess

pytestmark = [pytest.mark.slow, pytest.mark.train]

ALL_REDUCE = """
import datetime, os, socket, torch, torch.distributed as dist
dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=30))
ones = torch.full((1000,), dist.get_rank() + 1.0)
dist.all_reduce(ones)
text = f"rank {dist.get_rank()} of {dist.get_world_size()} on {socket.gethostname()}: {ones[0].item()}\\n"
os.write(1, text.encode())  # whole: the ranks of a host share a pipe
dist.destroy_process_group()
os._exit(0)  # torch 2.13 now and then aborts while it is taken down (pytorch#190489)
"""


def start(cluster: LittleCluster, nics: dict[str, str]) -> list[HostProcess]:
    """Starts the same script on both hosts through ssh from the head, two ranks on the first, one on the second."""
    torchrun = Path(sys.executable).with_name("torchrun")
    cluster.head.write("/shared/all_reduce.py", ALL_REDUCE)
    return [
        cluster.head.popen(
            [
                *["ssh", host.name, "env", "OMP_NUM_THREADS=1", f"GLOO_SOCKET_IFNAME={nics[host.name]}"],
                *[str(torchrun), "--nnodes=2", f"--nproc_per_node={2 - rank}", f"--node_rank={rank}"],
                *["--master_addr=node0", "--master_port=29500", "/shared/all_reduce.py"],
            ]
        )
        for rank, host in enumerate(cluster.hosts)
    ]


def test_all_reduce_over_two_hosts(restored: LittleCluster) -> None:
    runs = start(restored, {"node0": "bond0", "node1": "eno1"})
    outputs = [run.communicate(timeout=90)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], outputs
    said = sorted(line for line in "".join(outputs).splitlines() if line.startswith("rank "))
    assert said == ["rank 0 of 3 on node0: 6.0", "rank 1 of 3 on node0: 6.0", "rank 2 of 3 on node1: 6.0"]
    assert "cannot be retrieved" not in "".join(outputs)  # what c10d says when names do not resolve


def test_the_other_hosts_nic_name_fails_on_the_host_that_lacks_it(restored: LittleCluster) -> None:
    healthy, ill = start(restored, {"node0": "bond0", "node1": "bond0"})
    output, _ = ill.communicate(timeout=90)
    assert ill.returncode == 1
    assert "Unable to find address for: bond0" in output
    with pytest.raises(subprocess.TimeoutExpired):  # the host with the right NIC waits on, for half an hour
        healthy.wait(timeout=2)
