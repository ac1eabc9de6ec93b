"""Whole clusters' environments as a reader of the plan sees them, host by host: files in `composed/`.

`python -m tests.plan.test_composed` writes the files anew; read the difference before you keep it.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dsdoctor.checks.casefile import Case
from dsdoctor.plan.build import Wishes, plan
from dsdoctor.plan.deepspeed_env import parse_env_file
from dsdoctor.plan.layers import Setting
from dsdoctor.plan.shell import as_shell
from tests.checks.building import cluster_of
from tests.plan.test_plan import PATHS, job

FOLDER = Path(__file__).parent / "composed"
JOB = """
name: order
module: train
precision: auto
args: {precision: "${precision}", output_dir: "${output_dir}"}
env: {HF_HUB_OFFLINE: "1", WANDB_MODE: null}
gpu_env: {"RTX 4090": {NCCL_P2P_LEVEL: LOC}}
stages: [{name: only}]
"""
SHOWN = re.compile(r"# \S|#     (?:\w+=|\w+ is unset|everything else)")
SHELL_LEFTOVERS = {"NCCL_SOCKET_IFNAME": "bond0", "MASTER_ADDR": "192.0.2.4", "RANK": "0", "WANDB_MODE": "offline"}
CASES = {
    "xuanyuan": Case(name="xuanyuan", why="as it is", expect=(), cluster="xuanyuan"),
    "lab4090": Case(name="lab4090", why="as it is", expect=(), cluster="lab4090"),
    "mixed": Case(name="mixed", why="as it is", expect=(), cluster="mixed"),
    "xuanyuan-bad-day": Case(
        name="xuanyuan-bad-day",
        why="one host's NIC named to all, leftovers of a launch by hand, a hidden card, an interpreter not on PATH",
        expect=(),
        cluster="xuanyuan",
        change={
            "*": {"environment": {"variables": SHELL_LEFTOVERS}},
            "gpu-a": {"environment": {"variables": {"NCCL_PROTO": "Simple", "http_proxy": "http://192.0.2.1:3128"}}},
            "gpu-b": {
                "environment": {
                    "variables": {"CUDA_VISIBLE_DEVICES": "0", "PATH": "/usr/bin:/bin", "NCCL_DEBUG": "INFO"},
                    "secrets": ["HF_TOKEN"],
                }
            },
        },
    ),
}


def text_of(name: str) -> str:
    """The lines of the plan that say what each host gets; those that copy and start are other tests' business."""
    cluster = cluster_of(CASES[name])
    assert cluster is not None
    hosts = [member.name for member in cluster]
    asked = (Setting("OMP_NUM_THREADS", "6", "command line", f"--env {hosts[-1]}:OMP_NUM_THREADS", hosts[-1]),)
    files = (parse_env_file("HF_HOME=/data/hf\n", "~/.deepspeed_env"),)
    text = as_shell(plan(job(JOB), cluster, "order-1", PATHS, Wishes(settings=asked, deepspeed_env=files)))
    kept = [line for line in text.split("# === stage")[0].splitlines() if not line or SHOWN.match(line)]
    return "\n".join(kept).strip() + "\n"


@pytest.mark.parametrize("name", CASES)
def test_what_a_reader_sees_of_each_host_s_environment(name: str) -> None:
    assert text_of(name) == (FOLDER / f"{name}.txt").read_text(encoding="utf-8")


def test_there_is_no_file_of_a_cluster_that_is_gone() -> None:
    assert {path.stem for path in FOLDER.glob("*.txt")} == set(CASES)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for each in CASES:
        (FOLDER / f"{each}.txt").write_text(text_of(each), encoding="utf-8")
