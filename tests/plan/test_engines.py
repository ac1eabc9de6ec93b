"""What each engine starts on a host, which ranks get which LOCAL_RANK and device, and what does not go together.

Hosts with GPUs are composed facts here; the processes themselves are tried in tests/cluster/test_engines.py.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from inline_snapshot import snapshot

from dsdoctor.cluster import Cluster
from dsdoctor.jobs.engines import program_of
from dsdoctor.jobs.job import DeepSpeedConfig, parse_job, resolve
from dsdoctor.plan.build import Wishes, plan
from dsdoctor.plan.copies import Paths
from dsdoctor.plan.layers import Setting
from dsdoctor.plan.model import LaunchPlan
from dsdoctor.plan.shell import as_shell
from dsdoctor.yamlfile import FileError
from tests.plan.clusters import gpus, host, network, one_host, two_hosts

PATHS = Paths("/runs/demo-1", "/code", "/usr/bin/python3", deepspeed="/code/configs/zero2.json")


def job_text(engine: str, start: str = "script: train.py", more: str = "") -> str:
    return f"name: demo\nengine: {engine}\n{start}\n{more}\nargs: {{lr: 1e-3}}\nstages: [{{name: one}}]\n"


def made(cluster: Cluster, text: str, *settings: Setting, deepspeed: bool = False) -> LaunchPlan:
    job = resolve(parse_job(text, "launch/demo.yaml"), "launch/demo.yaml")
    if deepspeed:
        job = replace(job, deepspeed=DeepSpeedConfig("configs/zero2.json", {}))
    return plan(job, cluster, "demo-1", PATHS, Wishes(None, settings))


def with_slots(*slots: int, cards: int = 8) -> Cluster:
    """Hosts a, b, … with so many slots, each with the same cards."""
    names = "abcdef"[: len(slots)]
    members = []
    for index, (name, number) in enumerate(zip(names, slots, strict=True)):
        routes = {other: ("eth0", f"192.0.2.{10 + names.index(other)}") for other in names if other != name}
        there = network("eth0", f"192.0.2.{10 + index}", routes)
        members.append(host(name, number, network=there, gpu=gpus("NVIDIA A100-PCIE-40GB", cards, (8, 0))))
    return Cluster(tuple(members))


def chosen(cluster: Cluster, **devices: tuple[int, ...]) -> Cluster:
    """The cluster after --include of these slots."""
    return Cluster(
        tuple(
            replace(member, entry=replace(member.entry, devices=devices[member.name]))
            if member.name in devices
            else member
            for member in cluster
        )
    )


def argv(planned: LaunchPlan, name: str) -> str:
    return " ".join(planned.stages[0].command(name).argv)


def env(planned: LaunchPlan, name: str) -> dict[str, str]:
    return {variable.name: variable.value for variable in planned.host(name).env.values()}


def world_info(planned: LaunchPlan, name: str) -> dict[str, list[Any]]:
    word = next(word for word in planned.stages[0].command(name).argv if word.startswith("--world_info="))
    value: dict[str, list[Any]] = json.loads(base64.urlsafe_b64decode(word.partition("=")[2]))
    return value


def deepspeed_gives(planned: LaunchPlan, name: str) -> list[tuple[int, int, str]]:
    """What deepspeed.launcher.launch 0.19.8 makes of a host's command: (RANK, LOCAL_RANK, its device)."""
    world, node = world_info(planned, name), planned.host(name).node_rank
    first = sum(len(slots) for slots in list(world.values())[:node])
    slots = world[list(world)[node]]
    locals_ = [(first + index) % len(slots) for index in range(len(slots))]
    return [(first + index, local, str(slots[local])) for index, local in enumerate(locals_)]


# --- torchrun


def test_torchrun_by_default_is_static() -> None:
    planned = made(two_hosts(), job_text("torchrun", more="launcher_args: [--max_restarts=0]"))
    assert argv(planned, "b") == snapshot(
        "/opt/env/bin/python -m torch.distributed.run --nnodes 2 --node_rank 1 --nproc_per_node 2 "
        "--master_addr 192.0.2.4 --master_port 29501 --rdzv_conf timeout=120 "
        "--log_dir /home/b/.dsdoctor/work/demo/runs/demo-1/torchrun/1-one --tee 3 --max_restarts=0 "
        "train.py --lr 0.001"
    )
    assert planned.stages[0].command("b").ranks == ()


def test_c10d_is_planned_in_the_order_in_which_torchrun_will_have_it() -> None:
    cluster = with_slots(2, 1)
    turned = Cluster((cluster.members[1], cluster.members[0]))  # b first in the hostfile, a first by its address
    planned = made(turned, job_text("torchrun", more="rendezvous: c10d"))
    assert [(each.name, each.first_rank, each.address) for each in planned.hosts] == [
        ("a", 0, "192.0.2.10"),
        ("b", 2, "192.0.2.11"),
    ]
    assert planned.master_addr == "192.0.2.10"
    assert argv(planned, "b") == snapshot(
        "/opt/env/bin/python -m torch.distributed.run --nnodes 2 --nproc_per_node 1 "
        "--rdzv_backend c10d --rdzv_endpoint 192.0.2.10:29500 --rdzv_id demo-1 --local_addr 192.0.2.11 "
        "--rdzv_conf join_timeout=120,read_timeout=120,is_host=false "
        "--log_dir /home/b/.dsdoctor/work/demo/runs/demo-1/torchrun/1-one --tee 3 train.py --lr 0.001"
    )
    assert "is_host=true" in argv(planned, "a")


def test_c10d_sorts_the_hosts_behind_the_first_too() -> None:
    a, b, c = with_slots(1, 1, 1)
    planned = made(Cluster((a, c, b), master_addr="a"), job_text("torchrun", more="rendezvous: c10d"))
    assert [each.name for each in planned.hosts] == ["a", "b", "c"]


# --- deepspeed


def test_deepspeed_is_started_as_it_starts_itself_on_a_node() -> None:
    planned = made(with_slots(2, 2), job_text("deepspeed", "module: pkg.train"), deepspeed=True)
    words = planned.stages[0].command("b").argv
    assert words[:4] == ("/opt/env/bin/python", "-u", "-m", "deepspeed.launcher.launch")
    assert words[5:] == snapshot(
        (
            "--node_rank=1",
            "--master_addr=192.0.2.10",
            "--master_port=29500",
            "--enable_each_rank_log=/home/b/.dsdoctor/work/demo/runs/demo-1/ranks/1-one",
            "--module",
            "pkg.train",
            "--lr",
            "0.001",
            "--deepspeed",
            "configs/zero2.json",
        )
    )
    assert world_info(planned, "b") == {"a": [0, 1], "b": [0, 1]}
    assert planned.stages[0].command("b").rank_logs == "/home/b/.dsdoctor/work/demo/runs/demo-1/ranks/1-one"


@pytest.mark.parametrize(
    ("slots", "turned"),
    [
        ((3, 2), [(3, 1, "0"), (4, 0, "1")]),
        ((2, 1), [(2, 0, "0")]),
        ((2, 4), [(2, 2, "0"), (3, 3, "1"), (4, 0, "2"), (5, 1, "3")]),
        ((2, 2), [(2, 0, "0"), (3, 1, "1")]),
    ],
)
def test_deepspeed_s_turned_local_ranks_are_on_the_devices_in_order(
    slots: tuple[int, int], turned: list[tuple[int, int, str]]
) -> None:
    planned = made(with_slots(*slots), job_text("deepspeed"))
    assert deepspeed_gives(planned, "b") == turned
    assert planned.host("b").local_ranks == tuple(local for _, local, _ in turned)
    assert [device for _, _, device in deepspeed_gives(planned, "a")] == [str(index) for index in range(slots[0])]
    rotated = planned.host("b").local_ranks != tuple(range(slots[1]))
    assert ("gives them LOCAL_RANK" in as_shell(planned)) == rotated, "a plan in which they are turned says so"


def test_deepspeed_gets_exactly_the_slots_that_were_included() -> None:
    planned = made(chosen(with_slots(2, 4), b=(1, 3)), job_text("deepspeed"))
    assert world_info(planned, "b")["b"] == [1, 3]
    assert env(planned, "b")["CUDA_VISIBLE_DEVICES"] == "1,3"
    assert deepspeed_gives(planned, "b") == [(2, 0, "1"), (3, 1, "3")]


@pytest.mark.parametrize(
    ("value", "listed", "seen"),
    [
        ("5,6", [5, 6], "5,6"),  # DeepSpeed alone would override it with 0,1
        ("GPU-ab12,GPU-cd34,GPU-ef56", ["GPU-ab12", "GPU-cd34"], "GPU-ab12,GPU-cd34"),
        ("", [-1, -1], "-1,-1"),  # no device at all, and DeepSpeed must be told two
        ("-1", [-1, -1], "-1,-1"),
    ],
)
def test_devices_that_the_user_chose_are_what_deepspeed_is_told(value: str, listed: list[Any], seen: str) -> None:
    wish = Setting("CUDA_VISIBLE_DEVICES", value, "command line", "--env", "a")
    planned = made(with_slots(2, 2), job_text("deepspeed"), wish)
    assert world_info(planned, "a")["a"] == listed
    assert env(planned, "a")["CUDA_VISIBLE_DEVICES"] == seen
    assert env(planned, "b")["CUDA_VISIBLE_DEVICES"] == "0,1"


def test_a_stage_s_own_devices_count_for_that_stage_alone() -> None:
    stages = "[{name: one}, {name: two, env: {CUDA_VISIBLE_DEVICES: '3,4'}}]"
    text = f"name: demo\nengine: deepspeed\nscript: t.py\nstages: {stages}"
    planned = made(with_slots(2), text)
    words = [next(word for word in stage.command("a").argv if "world_info" in word) for stage in planned.stages]
    assert [json.loads(base64.urlsafe_b64decode(word[13:])) for word in words] == [{"a": [0, 1]}, {"a": [3, 4]}]
    assert planned.stages[1].command("a").env["CUDA_VISIBLE_DEVICES"].value == "3,4"


def test_fewer_devices_than_ranks_are_refused() -> None:
    wish = Setting("CUDA_VISIBLE_DEVICES", "3", "command line", "--env")
    with pytest.raises(FileError, match=r"CUDA_VISIBLE_DEVICES=3 .*names 1 device for 2 ranks on a.*slots=1"):
        made(with_slots(2, 2), job_text("deepspeed"), wish)


@pytest.mark.parametrize("engine", ["torchrun", "deepspeed", "python", "program"])
def test_every_engine_gets_the_host_s_own_network_and_gpu_variables(engine: str) -> None:
    start = "command: [run.sh]" if engine == "program" else "script: t.py"
    planned = made(two_hosts(), job_text(engine, start))
    for name, device in (("a", "bond0"), ("b", "eno1")):
        given = env(planned, name)
        assert given["NCCL_SOCKET_IFNAME"] == f"={device}"
        assert given["GLOO_SOCKET_IFNAME"] == device
        assert given["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
        assert given.get("CUDA_VISIBLE_DEVICES") == ("0,1" if engine == "deepspeed" else None)


def test_devices_mean_nothing_to_ranks_on_cpu() -> None:
    planned = made(one_host(), job_text("deepspeed"), Setting("CUDA_VISIBLE_DEVICES", "0", "inherited", "the session"))
    assert env(planned, "localhost")["CUDA_VISIBLE_DEVICES"] == "0,1"


def test_a_reason_that_was_there_is_kept() -> None:
    planned = made(chosen(with_slots(2, 4), b=(1, 3)), job_text("deepspeed"))
    assert "2 of 8 GPUs" in planned.host("b").env["CUDA_VISIBLE_DEVICES"].because


# --- python


def test_python_is_one_process_a_rank() -> None:
    planned = made(two_hosts(), job_text("python"))
    command = planned.stages[0].command("b")
    assert command.argv == ("/opt/env/bin/python", "-u", "train.py", "--lr", "0.001")
    assert [(part.rank, part.env) for part in command.ranks] == [
        (2, {"RANK": "2", "LOCAL_RANK": "0"}),
        (3, {"RANK": "3", "LOCAL_RANK": "1"}),
    ]
    ours = {name: value for name, value in env(planned, "b").items() if "RANK" in name or "WORLD" in name}
    assert ours == {"GROUP_RANK": "1", "LOCAL_WORLD_SIZE": "2", "NODE_RANK": "1", "WORLD_SIZE": "4"}
    assert (env(planned, "b")["MASTER_ADDR"], env(planned, "b")["MASTER_PORT"]) == ("192.0.2.4", "29501")


def test_one_rank_alone_is_plain_python() -> None:
    cluster = one_host()
    alone = Cluster((replace(cluster.members[0], entry=replace(cluster.members[0].entry, slots=1)),))
    planned = made(alone, job_text("python"))
    assert [(part.rank, part.env) for part in planned.stages[0].command("localhost").ranks] == [(0, {})]
    assert not {"WORLD_SIZE", "MASTER_ADDR", "RANK"} & set(env(planned, "localhost"))


def test_a_stale_world_size_of_the_shell_or_the_job_reaches_no_rank_and_a_given_one_is_said() -> None:
    settings = [Setting("WORLD_SIZE", "16", "job", "env of the job"), Setting("MASTER_PORT", "1", "inherited", "shell")]
    planned = made(two_hosts(), job_text("python"), *settings)
    assert env(planned, "a")["WORLD_SIZE"] == "4"
    assert env(planned, "a")["MASTER_PORT"] == "29501"
    assert planned.host("a").env["WORLD_SIZE"].replaced[-1] == ("job", "16")
    told = [warning for warning in planned.warnings if "WORLD_SIZE=16" in warning]
    assert len(told) == 2, "once a host"
    assert "--master-port" in told[0]
    assert not [warning for warning in planned.warnings if "MASTER_PORT" in warning]


# --- program


def test_a_program_is_told_where_it_is() -> None:
    command = (
        'command: [accelerate, launch, --num_machines, "${nnodes}", --machine_rank, "${node_rank}", --main_process_ip, '
        '"${master_addr}", --main_process_port, "${master_port}", --num_processes, "${world_size}", --max_restarts, 0, '
        '"${python}", "first=${first_rank}", "per=${nproc_per_node}", train.py]'
    )
    planned = made(two_hosts(), job_text("program", command))
    assert argv(planned, "b") == snapshot(
        "accelerate launch --num_machines 2 --machine_rank 1 --main_process_ip 192.0.2.4 --main_process_port 29501 "
        "--num_processes 4 --max_restarts 0 /opt/env/bin/python first=2 per=2 train.py --lr 0.001"
    )
    told = {name: env(planned, "b")[name] for name in ("NNODES", "NODE_RANK", "NPROC_PER_NODE", "WORLD_SIZE")}
    assert told == {"NNODES": "2", "NODE_RANK": "1", "NPROC_PER_NODE": "2", "WORLD_SIZE": "4"}
    assert env(planned, "b")["PET_TEE"] == "3"
    assert env(planned, "b")["PET_RDZV_CONF"] == "timeout=120,join_timeout=120,read_timeout=120"


def test_what_a_program_is_given_by_the_user_stays() -> None:
    wish = Setting("NPROC_PER_NODE", "1", "job", "env of the job")
    stale = Setting("NODE_RANK", "7", "inherited", "the session")
    planned = made(two_hosts(), job_text("program", "command: [llamafactory-cli, train, x.yaml]"), wish, stale)
    assert env(planned, "b")["NPROC_PER_NODE"] == "1"
    assert env(planned, "b")["NODE_RANK"] == "1", "what a shell still holds is no wish"
    assert planned.warnings == ()


def test_a_deepspeed_config_goes_where_a_program_says() -> None:
    text = job_text("program", 'command: [run.sh, --ds, "${deepspeed}"]')
    assert argv(made(two_hosts(), text, deepspeed=True), "a") == "run.sh --ds configs/zero2.json --lr 0.001"


def test_a_deepspeed_config_that_a_program_never_sees_is_refused() -> None:
    job = parse_job(job_text("program", "command: [run.sh]", "deepspeed: zero2.json"), "launch/demo.yaml")
    with pytest.raises(FileError, match=r"zero2.json is not used by stage one.*\$\{deepspeed\}"):
        resolve(job, "launch/demo.yaml", read_deepspeed=lambda name: DeepSpeedConfig(name, {}))


# --- what does not go together


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("engine: deepspeed\nscript: a.py\ncommand: [x]\n", "demo.yaml:4: command: and script: with engine: deepspeed"),
        ("module: a\ncommand: [x]\n", "demo.yaml:3: command: and module: with engine: torchrun"),
        ("engine: program\ncommand: [x]\nscript: a.py\n", "demo.yaml:4: script: a.py goes with an engine that"),
        ("engine: program\n", "demo.yaml:2: engine: program needs command:"),
        ("engine: program\ncommand: []\n", "demo.yaml:3: engine: program needs command:"),
        ("engine: python\n", "exactly one of module: and script:"),
        ("engine: python\nscript: a\nrendezvous: c10d\n", "demo.yaml:4: rendezvous: c10d is torchrun's"),
        ("engine: python\nscript: a\nlauncher_args: [-x]\n", "demo.yaml:4: launcher_args: engine: python starts no"),
        ("script: a\nlauncher_args: [--nnodes=2]\n", "demo.yaml:3: launcher_args: --nnodes=2 is set by the plan"),
        ("script: a\nlauncher_args: [--nproc_per_node, 2]\n", "--nproc_per_node is set by the plan"),
        ("engine: deepspeed\nscript: a\nlauncher_args: [--world_info=x]\n", "--world_info=x is set by the plan"),
        ("engine: mpirun\nscript: a\n", "demo.yaml:2: engine: Invalid enum value 'mpirun'"),
        ("script: a\nrendezvous: etcd\n", "demo.yaml:3: rendezvous: Invalid enum value 'etcd'"),
        ("engine: program\ncommand: x y\n", "demo.yaml:3: command: Expected `array`, got `str`"),
    ],
)
def test_keys_that_do_not_go_together(text: str, said: str) -> None:
    with pytest.raises(FileError) as refused:
        parse_job(f"name: demo\n{text}stages: [{{name: one}}]\n", "demo.yaml")
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("[accelerate, launch, t.py]", r"accelerate starts num_processes // num_machines .*unequal \(a 2, b 1\)"),
        ('["${python}", -m, accelerate.commands.launch, t.py]', "accelerate starts num_processes // num_machines"),
        ("[/opt/bin/deepspeed, t.py]", r"deepspeed starts the ranks of all hosts by itself.*engine: deepspeed"),
    ],
)
def test_programs_that_would_start_other_ranks_are_refused(words: str, said: str) -> None:
    with pytest.raises(FileError, match=said):
        made(with_slots(2, 1), job_text("program", f"command: {words}"))
    assert made(with_slots(2), job_text("program", f"command: {words}")), "on one host there is nothing wrong"


def test_accelerate_with_deepspeed_s_own_launcher_is_refused() -> None:
    words = "accelerate, launch, --use_deepspeed, t.py"
    with pytest.raises(FileError, match="--deepspeed_multinode_launcher=standard"):
        made(with_slots(2, 2), job_text("program", f"command: [{words}]"))
    standard = words.replace("t.py", "--deepspeed_multinode_launcher, standard, t.py")
    assert made(with_slots(2, 2), job_text("program", f"command: [{standard}]"))


@pytest.mark.parametrize(("more", "warned"), [("", True), (", --tee=3", False), (", --tee, '3'", False)])
def test_ranks_of_accelerate_whose_lines_would_carry_no_rank_are_told(more: str, warned: bool) -> None:
    planned = made(with_slots(2, 2), job_text("program", f"command: [accelerate, launch{more}, t.py]"))
    assert ("add --tee=3" in " ".join(planned.warnings)) is warned


def test_what_is_started_is_part_of_the_work() -> None:
    texts = [
        job_text("torchrun"),
        job_text("deepspeed"),
        job_text("deepspeed", more="launcher_args: [--no_local_rank]"),
        job_text("program", "command: [a]"),
        job_text("program", "command: [b]"),
    ]
    assert len({program_of(parse_job(text, "demo.yaml")) for text in texts}) == len(texts)


# --- the plan as text


def test_the_plan_says_which_ranks_a_host_has_and_where_they_are_turned() -> None:
    text = as_shell(made(with_slots(3, 2), job_text("deepspeed")))
    assert "# --- b: ranks 3 to 4; DeepSpeed's launcher gives them LOCAL_RANK 1, 0" in text
    assert "# --- a: ranks 0 to 2\n" in text


def test_the_commands_of_python_can_be_pasted(tmp_path: Path) -> None:
    """On this machine, by bash: every rank starts with its own numbers, and one that fails is the exit code."""
    script = "import os, sys; given = [os.environ[name] for name in ('RANK', 'LOCAL_RANK', 'WORLD_SIZE')];"
    write = "os.write(1, (' '.join(given) + chr(10)).encode());"
    (tmp_path / "train.py").write_text(f"{script} {write} sys.exit(3 if given[0] == '0' else 0)")
    job = resolve(parse_job(job_text("python"), "demo.yaml"), "demo.yaml")
    here = one_host(python={"version": "3.11", "executable": sys.executable})
    planned = plan(job, here, "demo-1", Paths(str(tmp_path / "run"), str(tmp_path), sys.executable))
    done = subprocess.run(["bash"], input=as_shell(planned), capture_output=True, text=True, check=False, timeout=60)
    assert sorted(done.stdout.split("\n")) == ["", "0 0 2", "1 1 2"], done.stderr
    assert done.returncode == 3
