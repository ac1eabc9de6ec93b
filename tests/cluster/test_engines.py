"""Every engine on real hosts: what each rank is given, whose line is whose, who failed, and the plan pasted by hand.

All of it on CPU over gloo. GPUs are the stand-in's: which devices a rank would see is real, that it computes on them
was not tried.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.commands import WORK, Head
from tests.cluster.little_cluster import LittleCluster

pytestmark = [pytest.mark.slow, pytest.mark.train, pytest.mark.timeout(900)]

PROGRAM = (
    'command: ["${python}", -m, torch.distributed.run, --nnodes, "${nnodes}", --node_rank, "${node_rank}", '
    '--nproc_per_node, "${nproc_per_node}", --master_addr, "${master_addr}", --master_port, "${master_port}", seats.py]'
)
ACCELERATE = (
    'command: ["${python}", -m, accelerate.commands.launch, --multi_gpu, "--num_machines=${nnodes}", '
    '"--machine_rank=${node_rank}", "--num_processes=${world_size}", "--main_process_ip=${master_addr}", '
    '"--main_process_port=${master_port}", --rdzv_backend=static, --rdzv_conf=timeout=120, '
    "--mixed_precision=no, --dynamo_backend=no, --tee=3, seats.py]"
)
ENGINES = {
    "torchrun": "engine: torchrun\nscript: seats.py",
    "c10d": "engine: torchrun\nrendezvous: c10d\nscript: seats.py",
    "deepspeed": "engine: deepspeed\nscript: seats.py",
    "python": "engine: python\nmodule: seats",
    "program": f"engine: program\n{PROGRAM}",
    "accelerate": f"engine: program\n{ACCELERATE}",
}
MakeHead = Callable[..., Head]


@pytest.fixture
def make_head(restored: LittleCluster) -> MakeHead:
    """Makes a head with so many slots on node0 and node1 and a job `seats.yaml` with that engine."""

    def make(engine: str, slots: tuple[int, int], more: str = "") -> Head:
        head = Head(restored, {"node0": slots[0], "node1": slots[1]})
        args = 'args: {output_dir: "${output_dir}"}'
        stages = "stages: [{name: one}]"
        head.host.write(f"{WORK}/job/seats.yaml", f"name: seats\n{ENGINES[engine]}\n{more}\n{args}\n{stages}\n")
        return head

    return make


def launch(head: Head, *words: str, **options: Any) -> Any:
    return head.dsdoctor("launch", "job/seats.yaml", "--hostfile", "hostfile", "--no-check", *words, **options)


def seats(head: Head) -> dict[int, dict[str, Any]]:
    """What each rank wrote down, with its host."""
    found: dict[int, dict[str, Any]] = {}
    for host in head.cluster.hosts:
        script = "cat /root/.dsdoctor/work/seats/runs/*/outputs/1-one/rank*.json | sed 's/}{/}\\n{/g'"
        for line in host.run(["sh", "-c", script], check=False).stdout.splitlines():
            seat = json.loads(line)
            found[int(seat["RANK"])] = {**seat, "host": host.name}
    return dict(sorted(found.items()))


def column(head: Head, name: str) -> list[Any]:
    return [seat.get(name) for seat in seats(head).values()]


def rank_logs(head: Head) -> dict[str, str]:
    """The logs of the newest run's only stage, by `host/file`."""
    folder = f"{head.state()['path']}/logs/1-one"
    names = head.host.run(["sh", "-c", f"cd {shlex.quote(folder)} && ls */*.log"]).stdout.split()
    return {name: head.host.read(f"{folder}/{name}") for name in names}


@pytest.mark.parametrize("engine", [name for name in ENGINES if name != "accelerate"])
def test_two_hosts_of_2_and_1_slots_meet_and_every_line_has_its_rank(make_head: MakeHead, engine: str) -> None:
    head = make_head(engine, (2, 1))
    done = launch(head, "--set", "meet=true")
    assert done.returncode == 0, done.stdout + done.stderr
    assert column(head, "host") == ["node0", "node0", "node1"]
    assert column(head, "WORLD_SIZE") == ["3"] * 3
    assert column(head, "LOCAL_RANK") == ["0", "1", "0"]
    logs = rank_logs(head)
    for name in ("node0/rank0", "node0/rank1", "node1/rank2"):
        rank = name[-1]
        lines = logs[f"{name}.log"].splitlines()
        printed = [line for line in lines if line.startswith(("rank ", "sum "))]
        # On standard error, which a busy guardian may read first; a thread of torch's may write behind it.
        risen = [line for line in printed if line.startswith(f"rank {rank} rises")]
        assert [line for line in printed if line not in risen] == [f"rank {rank} is seated", "sum 3 over 3"], logs
        assert len(risen) == 1, logs
    assert head.ranks() == []


def test_c10d_has_its_own_order_and_the_plan_knows_it(restored: LittleCluster, make_head: MakeHead) -> None:
    make_head("c10d", (2, 1))
    head = Head(restored, {"node1": 1, "node0": 2})
    done = launch(head)
    assert done.returncode == 0, done.stdout + done.stderr
    planned = json.loads(head.host.read(f"{head.state()['path']}/plan.json"))
    assert [(host["name"], host["first_rank"]) for host in planned["hosts"]] == [("node0", 0), ("node1", 2)]
    assert column(head, "host") == ["node0", "node0", "node1"]
    assert rank_logs(head)["node1/rank2.log"].splitlines()[0] == "rank 2 is seated"


@pytest.mark.parametrize("engine", ["torchrun", "deepspeed", "python"])
def test_slots_3_and_2(make_head: MakeHead, engine: str) -> None:
    head = make_head(engine, (3, 2))
    done = launch(head)
    assert done.returncode == 0, done.stdout + done.stderr
    assert column(head, "host") == ["node0"] * 3 + ["node1"] * 2
    assert column(head, "LOCAL_WORLD_SIZE") == ["3"] * 3 + ["2"] * 2
    turned = engine == "deepspeed"
    assert column(head, "LOCAL_RANK") == ["0", "1", "2", *(["1", "0"] if turned else ["0", "1"])]
    assert column(head, "WORLD_SIZE") == ["5"] * 5
    if turned:
        assert column(head, "LOCAL_SIZE") == ["3"] * 3 + ["2"] * 2
        assert column(head, "others") == [[f"--local_rank={number}"] for number in (0, 1, 2, 1, 0)]
        device = [seat["CUDA_VISIBLE_DEVICES"].split(",")[int(seat["LOCAL_RANK"])] for seat in seats(head).values()]
        assert device == ["0", "1", "2", "0", "1"], "the ranks of a host are on its devices in their order"
    else:
        assert column(head, "GROUP_RANK") == ["0"] * 3 + ["1"] * 2


@pytest.mark.parametrize("engine", ["torchrun", "deepspeed", "python"])
def test_ranks_see_the_gpus_that_were_included(make_head: MakeHead, fake_nvml: object, engine: str) -> None:
    head = make_head(engine, (2, 2))
    for host in head.cluster.hosts:
        host.install_fake_gpus("a100")
    done = launch(head, "--include", "node0@node1:1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert column(head, "host") == ["node0", "node0", "node1"]
    everything = "0,1" if engine == "deepspeed" else None  # without a choice its launcher names them all
    assert column(head, "CUDA_VISIBLE_DEVICES") == [everything, everything, "1"]
    assert column(head, "LOCAL_RANK") == ["0", "1", "0"]


def test_deepspeed_does_not_override_devices_that_were_chosen(make_head: MakeHead, fake_nvml: object) -> None:
    head = make_head("deepspeed", (1, 1))
    for host in head.cluster.hosts:
        host.install_fake_gpus("a100")
    done = launch(head, "--env", "node1:CUDA_VISIBLE_DEVICES=1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert column(head, "CUDA_VISIBLE_DEVICES") == ["0", "1"]


@pytest.mark.parametrize("engine", ["deepspeed", "python"])
@pytest.mark.parametrize(("how", "said"), [("kill", "was killed by SIGKILL"), ("raise", "ended with exit code 1")])
def test_the_rank_that_failed_is_named_and_nothing_is_left(
    make_head: MakeHead, engine: str, how: str, said: str
) -> None:
    head = make_head(engine, (2, 2))
    done = launch(head, "--set", "fail_rank='3'", "--set", f"how={how}", timeout=60)
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"stage one failed: rank 3 on node1 {said}" in done.stderr
    assert head.state()["stages"][0]["exit_codes"]["node1"] == (-9 if how == "kill" else 1)
    assert head.ranks() == []
    if how == "raise":
        assert "the label of row 17" in rank_logs(head)["node1/rank3.log"]


def test_one_rank_alone_is_plain_python(make_head: MakeHead) -> None:
    head = make_head("python", (1, 1))
    done = launch(head, "--include", "node1")
    assert done.returncode == 0, done.stdout + done.stderr
    path = (
        head.cluster["node1"].run(["sh", "-c", "ls /root/.dsdoctor/work/seats/runs/*/outputs/1-one/*"]).stdout.strip()
    )
    assert path.endswith("/rankalone.json")
    assert json.loads(head.cluster["node1"].read(path)) == {"others": []}
    assert rank_logs(head)["node1/rank0.log"].splitlines() == ["rank alone is seated", "rank alone rises"]


def test_accelerate_over_two_hosts(make_head: MakeHead) -> None:
    head = make_head("accelerate", (2, 2))
    done = launch(head, "--set", "meet=true")
    assert done.returncode == 0, done.stdout + done.stderr
    assert column(head, "host") == ["node0", "node0", "node1", "node1"]
    assert column(head, "LOCAL_RANK") == ["0", "1", "0", "1"]
    assert rank_logs(head)["node1/rank3.log"].splitlines()[0] == "rank 3 is seated"
    make_head("accelerate", (2, 1))
    refused = launch(head)
    assert refused.returncode == 2
    assert "the slots here are unequal (node0 2, node1 1)" in refused.stderr


@pytest.fixture
def extensions() -> Path:
    """A folder with DeepSpeed's op for communication on CPU, built once (50 s) and seen by the hosts as it is here."""
    build = Path(__file__).parents[2] / "build"  # the hosts see the repository; git does not see this
    folder = build / f"torch_extensions-{version('torch')}-{version('deepspeed')}"
    folder.mkdir(parents=True, exist_ok=True)
    if not list(folder.glob("*/*.so")):
        code = "import deepspeed; deepspeed.init_distributed('gloo', auto_mpi_discovery=False)"
        alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # ninja's
        cpu = {"DS_ACCELERATOR": "cpu", "TORCH_EXTENSIONS_DIR": str(folder), "PATH": path}
        env = {**os.environ, **alone, **cpu}
        subprocess.run([sys.executable, "-c", code], env=env, check=True, capture_output=True, timeout=280)
    return folder


def test_deepspeed_s_own_engine_trains_over_two_hosts(restored: LittleCluster, extensions: Path) -> None:
    """ZeRO 2 with a config that the job names."""
    head = Head(restored, {"node0": 1, "node1": 1})
    lines = (
        "name: seats",
        "engine: deepspeed",
        "script: zero.py",
        "deepspeed: zero2.json",
        f"env: {{DS_ACCELERATOR: cpu, TORCH_EXTENSIONS_DIR: {extensions}}}",
    )
    stages = "stages: [{name: one, outputs: [losses.json]}]"
    args = 'args: {output_dir: "${output_dir}"}'
    head.host.write(f"{WORK}/job/seats.yaml", "\n".join((*lines, args, stages, "")))
    done = launch(head, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    losses = json.loads(head.host.read(f"{head.state()['path']}/outputs/1-one/losses.json"))
    assert len(losses) == 5
    assert losses[-1] < losses[0]
    for name in ("node0/rank0.log", "node1/rank1.log"):
        assert [line[:6] for line in rank_logs(head)[name].splitlines() if line.startswith("step")] == [
            f"step {step}" for step in range(5)
        ]


@pytest.mark.parametrize("engine", [name for name in ENGINES if name != "accelerate"])
def test_the_plan_pasted_into_a_shell_does_the_same(make_head: MakeHead, engine: str) -> None:
    head = make_head(engine, (2, 1))
    plan = launch(head, "--dry-run", "--set", "meet=true")
    assert plan.returncode == 0, plan.stderr
    done = head.host.run(["bash"], given=plan.stdout, cwd=WORK, check=False, timeout=90)
    assert done.returncode == 0, done.stdout + done.stderr
    assert column(head, "host") == ["node0", "node0", "node1"]
    assert column(head, "LOCAL_RANK") == ["0", "1", "0"]
    told = done.stdout
    if engine == "deepspeed":  # its launcher keeps the ranks' lines in files
        script = "cat /root/.dsdoctor/work/seats/runs/*/ranks/1-one/*"
        told = "".join(host.run(["sh", "-c", script]).stdout for host in head.cluster.hosts)
    assert told.count("sum 3 over 3") == 3


def test_a_port_that_is_closed_between_the_hosts_is_named_within_a_minute(make_head: MakeHead) -> None:
    """DeepSpeed's own ranks would try for 10 minutes, torch's for 30."""
    head = make_head("deepspeed", (1, 1))
    rules = "add table inet dsd; add chain inet dsd in {type filter hook input priority 0;}; "
    head.cluster["node0"].run(["nft", rules + "add rule inet dsd in iifname bond0 tcp dport 29500 drop"])
    done = launch(head, "--set", "meet=true", timeout=100)
    assert done.returncode == 1
    assert "node1 does not reach 10.77.0.10:29500, where rank 0 has been waiting" in done.stderr
    assert head.ranks() == []
