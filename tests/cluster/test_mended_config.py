"""A mended copy of a DeepSpeed config reaches the hosts, apart from the code; the original is as it was, everywhere."""

from __future__ import annotations

import pytest

from tests.cluster.commands import WORK, Head
from tests.cluster.little_cluster import LittleCluster

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

JOB = """
name: mended
script: run.py
engine: python
deepspeed: code/ds.json
sync: {code: code}
args: {per_device_train_batch_size: 4, bf16: true}
stages: [{name: one}]
"""
PROGRAM = """
import sys
path = sys.argv[sys.argv.index("--deepspeed") + 1]
print("read", path, "".join(open(path).read().split()), flush=True)
"""
WRONG = '{"train_micro_batch_size_per_gpu": 8, "zero_optimization": {"stage": 2}}\n'
RIGHT = '{"train_micro_batch_size_per_gpu":"auto","zero_optimization":{"stage":2}}'


def test_every_rank_reads_the_copy(restored: LittleCluster) -> None:
    head = Head(restored)
    for name, text in (("mended.yaml", JOB), ("code/run.py", PROGRAM), ("code/ds.json", WRONG)):
        head.host.write(f"{WORK}/{name}", text)
    done = head.dsdoctor("launch", "mended.yaml", "--hostfile", "hostfile")
    assert done.returncode == 0, done.stdout + done.stderr
    run = head.state()["path"].rpartition("/")[2]
    place = f"/root/.dsdoctor/work/mended/deepspeed/{run}.ds.mended.json"
    log = head.host.read(f"{WORK}/runs/{run}/logs/1-one/merged.log")
    assert log.count(f"read {place} {RIGHT}") == 3, log
    for host, path in ((head.host, f"{WORK}/code"), (restored["node0"], "/root/.dsdoctor/work/mended/code")):
        assert host.read(f"{path}/ds.json") == WRONG
