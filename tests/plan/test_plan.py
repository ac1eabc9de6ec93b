"""The plan: each host's own environment with its reasons, commands, and what cannot be planned."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dsdoctor.cluster import Cluster
from dsdoctor.jobs.job import ResolvedJob, parse_job, resolve
from dsdoctor.plan.build import Wishes, plan
from dsdoctor.plan.copies import Paths
from dsdoctor.plan.layers import Setting, is_secret
from dsdoctor.plan.model import LaunchPlan, PlanError
from dsdoctor.plan.overlay import with_planned_environment
from dsdoctor.plan.shell import as_shell
from dsdoctor.run.launch import job_fingerprint
from dsdoctor.yamlfile import FileError
from tests.plan.clusters import gpus, host, network, one_host, two_hosts

JOB = """
name: demo
module: pkg.train
precision: auto
args: {learning_rate: 1e-3, output_dir: "${output_dir}", precision: "${precision}", flag: true, nothing: null}
gpu_env: {V100: {NCCL_ALGO: Ring}}
env: {OMP_NUM_THREADS: "3"}
stages:
  - {name: first, outputs: [model.bin]}
  - {name: second, args: {before: "${previous_output_dir}", tasks: [x, y]}, env: {EXTRA: "1"}}
"""
PATHS = Paths("/runs/demo-1", "/code", "/usr/bin/python3")


def job(text: str = JOB, **options: Any) -> ResolvedJob:
    return resolve(parse_job(text, "launch/demo.yaml"), "launch/demo.yaml", **options)


def made(cluster: Cluster, text: str = JOB, *settings: Setting, port: int | None = None) -> LaunchPlan:
    return plan(job(text), cluster, "demo-1", PATHS, Wishes(port, settings))


def values(planned: LaunchPlan, name: str) -> dict[str, str]:
    return {variable.name: variable.value for variable in planned.host(name).env.values()}


def test_each_host_gets_its_own_interface_by_the_route_to_the_master() -> None:
    planned = made(two_hosts())
    assert values(planned, "a")["NCCL_SOCKET_IFNAME"] == "=bond0"
    assert values(planned, "b")["NCCL_SOCKET_IFNAME"] == "=eno1"
    assert values(planned, "b")["GLOO_SOCKET_IFNAME"] == "eno1"
    assert planned.host("b").env["GLOO_SOCKET_IFNAME"].because == "the route to 192.0.2.4 leaves by eno1"
    assert planned.host("a").env["GLOO_SOCKET_IFNAME"].because.startswith("bond0 holds 192.0.2.4")
    assert (planned.master_addr, planned.master_port) == ("192.0.2.4", 29501), "29500 is listened on"


def test_what_must_be_equal_is_equal_and_says_why() -> None:
    planned = made(two_hosts())
    for name in ("a", "b"):
        assert values(planned, name)["NCCL_IB_DISABLE"] == "1"
        assert "no active InfiniBand port on a, b" in planned.host(name).env["NCCL_IB_DISABLE"].because
    assert planned.forecast["precision"] == "fp16"
    assert "b has a GPU of compute capability 7.0" in planned.forecast["precision_because"]


def test_the_flight_recorder_is_on() -> None:
    planned = made(two_hosts())
    for name in ("a", "b"):
        assert int(values(planned, name)["TORCH_NCCL_TRACE_BUFFER_SIZE"]) > 0


def test_infiniband_is_used_only_where_every_host_has_it() -> None:
    port = {"devices": [{"name": "mlx5_1", "ports": [{"port": 1, "state": "ACTIVE"}, {"port": 2, "state": "DOWN"}]}]}
    both = two_hosts(infiniband=port)
    one = made(both)
    assert "NCCL_IB_HCA" not in values(one, "b")
    first = replace(both.members[0], facts=host("a", 2, infiniband=port, **_sections(both, 0)).facts)
    planned = made(Cluster((first, both.members[1])))
    assert values(planned, "a")["NCCL_IB_HCA"] == "=mlx5_1:1"
    assert "NCCL_IB_DISABLE" not in values(planned, "a")


def _sections(cluster: Cluster, index: int) -> dict[str, Any]:
    facts = cluster.members[index].facts
    assert facts is not None
    return {name: facts.snapshot.sections[name].value for name in ("network", "gpu")}


def test_p2p_is_disabled_only_on_the_host_where_it_does_not_work() -> None:
    planned = made(two_hosts(gpu=gpus("NVIDIA GeForce RTX 4090", 2, (8, 9), p2p=1)))
    assert "NCCL_P2P_DISABLE" not in values(planned, "a")
    assert values(planned, "b")["NCCL_P2P_DISABLE"] == "1"
    assert planned.forecast["precision"] == "bf16"


def test_layers_win_in_order_and_the_plan_says_over_what() -> None:
    planned = made(two_hosts(), JOB, Setting("NCCL_ALGO", "Tree", "command line", "--env", "b"))
    threads = planned.host("a").env["OMP_NUM_THREADS"]
    assert (threads.value, threads.layer, threads.replaced) == ("3", "job", (("derived", "4"),))
    algo = planned.host("b").env["NCCL_ALGO"]
    assert (algo.value, algo.replaced) == ("Tree", (("gpu template", "Ring"),))
    assert "NCCL_ALGO" not in values(planned, "a")


def test_the_hostfile_word_ifname_beats_the_route() -> None:
    cluster = two_hosts()
    b = replace(cluster.members[1], entry=replace(cluster.members[1].entry, ifname="ib0", line=2))
    variable = made(Cluster((cluster.members[0], b))).host("b").env["NCCL_SOCKET_IFNAME"]
    assert (variable.value, variable.layer, variable.replaced) == ("=ib0", "host", (("derived", "=eno1"),))


def test_commands_ranks_and_paths() -> None:
    planned = made(two_hosts())
    command = planned.stages[1].command("b")
    assert command.cwd == "/home/b/.dsdoctor/work/demo/code"
    text = " ".join(command.argv)
    assert text.startswith("/opt/env/bin/python -m torch.distributed.run --nnodes 2 --node_rank 1 --nproc_per_node 2")
    assert "--master_addr 192.0.2.4 --master_port 29501" in text
    assert text.endswith(
        "-m pkg.train --learning_rate 0.001 --output_dir /home/b/.dsdoctor/work/demo/runs/demo-1/outputs/2-second "
        "--precision fp16 --flag true --before /home/b/.dsdoctor/work/demo/runs/demo-1/outputs/1-first --tasks x y"
    )
    assert [host.first_rank for host in planned.hosts] == [0, 2]
    assert planned.world_size == 4
    assert {name: variable.value for name, variable in command.env.items()} == {"EXTRA": "1"}
    assert planned.stages[0].command("b").env == {}


def test_one_host_meets_itself_on_loopback() -> None:
    planned = made(one_host())
    assert planned.master_addr == "127.0.0.1"
    assert values(planned, "localhost")["GLOO_SOCKET_IFNAME"] == "lo"
    assert "NCCL_SOCKET_IFNAME" not in values(planned, "localhost")
    assert planned.stages[0].command("localhost").cwd == "/code"
    assert planned.host("localhost").run_dir == "/runs/demo-1"
    assert planned.forecast["precision"] == "fp32"


def test_filtered_devices_become_visible_devices() -> None:
    cluster = two_hosts()
    b = replace(cluster.members[1], entry=replace(cluster.members[1].entry, devices=(1,)))
    planned = made(Cluster((cluster.members[0], b)))
    assert values(planned, "b")["CUDA_VISIBLE_DEVICES"] == "1"
    assert "CUDA_VISIBLE_DEVICES" not in values(planned, "a")
    assert planned.world_size == 3


def test_a_proxy_does_not_catch_the_hosts() -> None:
    variables = {"HOME": "/root", "https_proxy": "http://127.0.0.1:10809", "no_proxy": "internal,a"}
    planned = made(two_hosts(environment={"variables": variables}))
    assert values(planned, "b")["no_proxy"] == "internal,a,b,localhost,127.0.0.1"
    assert "no_proxy" not in values(planned, "a")


def test_secrets_are_named_and_not_shown() -> None:
    planned = made(two_hosts(), JOB, Setting("HF_TOKEN", "hf_abc", "command line", "--env"))
    assert planned.host("a").env["HF_TOKEN"].real_value == "hf_abc"
    assert planned.to_dict()["hosts"][0]["env"]["HF_TOKEN"]["secret"] is True
    assert "hf_abc" not in str(planned.to_dict())
    assert "hf_abc" not in as_shell(planned)


def test_a_secret_may_differ_from_host_to_host() -> None:
    settings = [Setting("A_TOKEN", name, "command line", "--env", name) for name in ("a", "b")]
    planned = made(two_hosts(), JOB, *settings)
    assert [planned.host(name).env["A_TOKEN"].real_value for name in ("a", "b")] == ["a", "b"]


@pytest.mark.parametrize(
    ("name", "value", "hidden"),
    [
        ("OPENAI_KEY", "x", True),
        ("SSH_PASSPHRASE", "x", True),
        ("WANDB_API_KEY", "x", True),
        ("https_proxy", "http://user:pw@proxy:3128", True),
        ("https_proxy", "http://proxy:3128", False),
        ("TOKENIZERS_PARALLELISM", "false", False),
        ("MAX_TOKENS", "512", False),
        ("PWD", "/root", False),
    ],
)
def test_what_counts_as_a_secret(name: str, value: str, hidden: bool) -> None:
    assert is_secret(name, value) is hidden


def test_the_hostfile_beats_a_stage() -> None:
    cluster = two_hosts()
    b = replace(cluster.members[1], entry=replace(cluster.members[1].entry, ifname="ib0", line=2))
    text = JOB.replace('env: {EXTRA: "1"}', "env: {GLOO_SOCKET_IFNAME: eth9}")
    planned = made(Cluster((cluster.members[0], b)), text)
    assert planned.stages[1].command("a").env["GLOO_SOCKET_IFNAME"].value == "eth9"
    assert planned.stages[1].command("b").env["GLOO_SOCKET_IFNAME"].value == "ib0"


def test_the_dry_run_goes_by_the_hostfile_s_door_and_holds_no_line_of_its_own() -> None:
    cluster = two_hosts()
    b = replace(cluster.members[1], entry=replace(cluster.members[1].entry, user="alice", port=2222))
    text = as_shell(made(Cluster((cluster.members[0], b)), JOB, Setting("ODD", "a\nid\x1b", "command line", "--env")))
    assert "ssh -p 2222 -l alice -n -- b " in text
    assert "rsync -rlpt -s -e 'ssh -p 2222 -l alice' --exclude=/.dsdoctor-sync" in text
    assert "\x1b" not in text
    assert not [line for line in text.splitlines() if line.startswith("id")]


def test_the_order_of_the_stages_is_part_of_the_work() -> None:
    first = job(JOB)
    turned = replace(first, stages=tuple(reversed(first.stages)))
    assert job_fingerprint(first) != job_fingerprint(turned)
    assert job_fingerprint(first) == job_fingerprint(job(JOB))
    assert job_fingerprint(first) != job_fingerprint(job(JOB.replace("precision: auto", "precision: fp16")))


@pytest.mark.parametrize(
    ("cluster", "words"),
    [
        (
            two_hosts(network=network("eno1", "192.0.2.5", {"a": ("lo", "127.0.1.1")})),
            ["do not reach a by one address", "b: 127.0.1.1", "192.0.2.4"],
        ),
        (two_hosts(network=network("eno1", "192.0.2.5", {})), ["b cannot resolve a", "/etc/hosts"]),
        (two_hosts(network=None), ["b", "network is not known", "did not report"]),
        (two_hosts(environment={"variables": {}}), ["home folder on b", "workdir="]),
        (Cluster((host("a", 0, network=network("eno1", "192.0.2.5", {})),)), ["no host has a slot"]),
    ],
)
def test_what_cannot_be_planned_says_why_and_what_to_do(cluster: Cluster, words: list[str]) -> None:
    with pytest.raises(PlanError) as error:
        made(cluster)
    for word in words:
        assert word in str(error.value)


def test_a_port_that_is_taken_is_refused_with_the_way_to_find_its_owner() -> None:
    with pytest.raises(PlanError, match=r"port 29500 on a is already listened on.*ss -ltnp"):
        made(two_hosts(), port=29500)


def test_an_unknown_placeholder_is_refused() -> None:
    with pytest.raises(FileError, match=r"stage first, learning_rate: there is no \$\{lr\}"):
        made(one_host(), JOB.replace("1e-3", '"${lr}"'))


def test_placeholders_in_variables_of_the_job_stand_for_the_same_as_in_arguments() -> None:
    text = JOB.replace('"3"}', '"3", OUT: "${output_dir}/${stage}", RANKS: "$5 $${HOME} ${HOME} ${nnodes}"}')
    text = text.replace('env: {EXTRA: "1"}', 'env: {EXTRA: "${first_rank}"}')
    planned = made(two_hosts(), text, Setting("SAID", "${stage}", "command line", "--env"))
    ranks_get = [planned.host("b").env | stage.command("b").env for stage in planned.stages]
    run = planned.host("b").run_dir
    assert [env["OUT"].value for env in ranks_get] == [
        f"{run}/outputs/1-first/first",
        f"{run}/outputs/2-second/second",
    ]
    assert ranks_get[0]["RANKS"].value == "$5 $${HOME} ${HOME} 2"
    assert ranks_get[1]["EXTRA"].value == str(planned.host("b").first_rank)
    assert ranks_get[0]["SAID"].value == "${stage}", "what is typed is what is meant"


def test_a_host_that_answers_by_another_interface_is_said() -> None:
    cluster = two_hosts()
    a = host("a", 2, network=network("bond0", "192.0.2.4", {"b": ("docker0", "192.0.2.5")}))
    planned = made(Cluster((a, cluster.members[1])))
    assert planned.warnings == ("a: answers to other hosts leave by docker0 although they arrive at bond0",)


def test_checks_see_the_environment_that_the_ranks_will_get() -> None:
    cluster = two_hosts(environment={"variables": {"HOME": "/root", "NCCL_SOCKET_IFNAME": "bond0"}})
    seen = with_planned_environment(cluster, made(cluster))
    facts = seen.members[1].facts
    assert facts is not None
    assert facts.environment.variables["NCCL_SOCKET_IFNAME"] == "=eno1"


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        (Setting("1X", "2", "command line", "--env 1X"), "--env 1X: '1X' is no name for a variable"),
        (Setting("A", "x\0y", "command line", "--env A"), "--env A: the value of A holds a NUL"),
        (
            Setting("A", "x", "command line", "--env c:A", "c"),
            "--env c:A: no host of this run is called c; there are: a, b",
        ),
    ],
)
def test_a_setting_that_cannot_be_is_refused(setting: Setting, words: str) -> None:
    with pytest.raises(FileError) as error:
        made(two_hosts(), JOB, setting)
    assert words in str(error.value)
