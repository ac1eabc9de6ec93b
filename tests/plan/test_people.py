"""What people have set on the hosts: it counts where it is right, and is contradicted aloud where it is not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dsdoctor.checks import JobContext, run_checks
from dsdoctor.cluster import Cluster, Member
from dsdoctor.plan.build import Wishes, plan
from dsdoctor.plan.deepspeed_env import NotTakenError, as_on_host, parse_env_file
from dsdoctor.plan.layers import Setting
from dsdoctor.plan.model import EnvVar, LaunchPlan, names_unset, values_sent
from dsdoctor.plan.overlay import with_planned_environment
from dsdoctor.plan.shell import as_shell, command_line
from tests.plan.clusters import gpus, host, network, one_host, two_hosts
from tests.plan.test_plan import JOB, PATHS, job, made

PORT = {"devices": [{"name": "mlx5_1", "ports": [{"port": 1, "state": "ACTIVE", "link_layer": "InfiniBand"}]}]}
DEEPSPEED = JOB.replace("name: demo", "name: demo\nengine: deepspeed")


def session(*, files: list[dict[str, Any]] | None = None, secrets: tuple[str, ...] = (), **variables: str) -> Any:
    """An environment section with these variables in it."""
    known = {"variables": {"HOME": "/home/b", **variables}, "files": files or [], "secrets": list(secrets)}
    return {"environment": known}


def nccl_conf(**variables: str) -> dict[str, Any]:
    return {"path": "/etc/nccl.conf", "variables": variables, "reader": "nccl"}


def on_b(text: str = JOB, *settings: Setting, **sections: Any) -> tuple[dict[str, EnvVar], tuple[str, ...], LaunchPlan]:
    """The environment that b gets, the warnings, and the plan."""
    planned = made(two_hosts(**sections), text, *settings)
    return planned.host("b").env, planned.warnings, planned


def test_a_user_s_own_value_wins_over_a_derived_one_and_the_plan_says_so() -> None:
    env, warnings, planned = on_b(**session(NCCL_DEBUG="INFO", HF_HOME="/data/hf", EDITOR="vi"))
    assert (env["NCCL_DEBUG"].value, env["NCCL_DEBUG"].layer) == ("INFO", "inherited")
    assert env["NCCL_DEBUG"].replaced == (("derived", "WARN"),)
    assert env["HF_HOME"].because == "set in the session"
    assert "EDITOR" not in env, "it has nothing to do with training"
    assert warnings == ()
    assert "NCCL_DEBUG=INFO [inherited]: set in the session; instead of 'WARN' (derived)" in as_shell(planned)
    assert "everything else in the environment of a session on this host is passed on" in as_shell(planned)


def test_what_the_session_has_is_not_sent_again() -> None:
    env, _, planned = on_b(**session(secrets=("HF_TOKEN",), NCCL_DEBUG="INFO"))
    assert not {"NCCL_DEBUG", "HF_TOKEN"} & set(values_sent(env))
    assert " NCCL_DEBUG=" not in command_line(planned, planned.stages[0].command("b"))
    assert "HF_TOKEN=(secret: of the session there) [inherited]" in as_shell(planned)


@pytest.mark.parametrize(
    ("name", "value", "wanted", "reason"),
    [
        ("NCCL_SOCKET_IFNAME", "bond0", "=eno1", "no interface has a name that begins with bond0"),
        ("NCCL_SOCKET_IFNAME", "lo", "=eno1", "it is the loopback interface"),
        ("NCCL_SOCKET_IFNAME", "docker0", "=eno1", "docker0 is in no network with another host"),
        ("GLOO_SOCKET_IFNAME", "=eno1", "eno1", "no interface is called =eno1"),
        ("NCCL_IB_DISABLE", "0", "1", "no active InfiniBand port on a, b"),
        ("CUDA_DEVICE_ORDER", "FASTEST_FIRST", "PCI_BUS_ID", "GPU numbers are those of nvidia-smi"),
    ],
)
def test_a_value_that_is_wrong_on_the_host_is_beaten_aloud(name: str, value: str, wanted: str, reason: str) -> None:
    interfaces = network("eno1", "192.0.2.5", {"a": ("eno1", "192.0.2.4")})
    for other, address in (("lo", "127.0.0.1"), ("docker0", "172.17.0.1")):
        held = [{"address": address, "prefix": 16}]
        more = {"name": other, "up": True, "virtual": True, "loopback": other == "lo", "addresses": held}
        interfaces["interfaces"].append(more)
    env, warnings, _ = on_b(network=interfaces, **session(**{name: value}))
    assert (env[name].value, env[name].layer) == (wanted, "derived")
    assert ("inherited", value) in env[name].replaced
    assert values_sent(env)[name] == wanted
    (warning,) = warnings
    assert warning.startswith(f"b: {name}={value} in the session is not used: ")
    assert reason in warning
    assert warning.endswith(f"; {wanted} instead")


@pytest.mark.parametrize(
    "name", ["MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE", "LOCAL_RANK", "TORCHELASTIC_RUN_ID"]
)
def test_what_an_earlier_launch_left_is_taken_away(name: str) -> None:
    env, warnings, planned = on_b(**session(**{name: "7"}))
    assert env[name].unset
    assert name in names_unset(env)
    assert warnings == (
        f"b: {name}=7 in the session is not used: it is left over from another launch; each rank gets its own; "
        "it is taken away",
    )
    assert f"#     {name} is unset: it is left over" in as_shell(planned)
    assert f" env -u {name} " in command_line(planned, planned.stages[0].command("b"))
    facts = with_planned_environment(two_hosts(**session(**{name: "7"})), planned).members[1].facts
    assert facts is not None
    assert name not in facts.environment.variables, "checks judge what the ranks will get"


def test_an_interface_of_the_user_s_choice_in_the_network_of_other_hosts_is_respected() -> None:
    both = []
    for name, net in (("a", 4), ("b", 5)):
        section = network("eno1", f"192.0.2.{net}", {"b" if name == "a" else "a": ("eno1", f"192.0.2.{9 - net}")})
        held = [{"address": f"198.51.100.{net}", "prefix": 24}]
        section["interfaces"].append({"name": "ib0", "up": True, "addresses": held})
        more = session(NCCL_SOCKET_IFNAME="=ib0")
        both.append(host(name, 2, network=section, gpu=gpus("NVIDIA A100", 2, (8, 0)), **more))
    planned = made(Cluster(tuple(both)))
    variable = planned.host("b").env["NCCL_SOCKET_IFNAME"]
    assert (variable.value, variable.layer, variable.replaced) == ("=ib0", "inherited", (("derived", "=eno1"),))
    assert planned.warnings == ()


def test_peer_to_peer_switched_off_where_it_works_counts_and_its_price_is_said() -> None:
    env, warnings, _ = on_b(**session(NCCL_P2P_DISABLE="1"))
    assert env["NCCL_P2P_DISABLE"].layer == "inherited"
    assert warnings == (
        "b: NCCL_P2P_DISABLE=1 in the session counts: the GPUs of this host reach each other's memory, so it only "
        "costs speed; --env NCCL_P2P_DISABLE- takes it away, --env HOST:NCCL_P2P_DISABLE- on one host",
    )
    card = gpus("NVIDIA GeForce RTX 4090", 2, (8, 9), p2p=1)
    env, warnings, _ = on_b(gpu=card, **session(NCCL_P2P_DISABLE="0"))
    assert env["NCCL_P2P_DISABLE"].value == "1"
    assert "cannot reach each other's memory; 1 instead" in warnings[0]


@pytest.mark.parametrize("driver", ["525.105.17", "550.54.15"])
def test_a_driver_that_claims_peer_to_peer_falsely_is_not_believed(driver: str) -> None:
    card = gpus("NVIDIA GeForce RTX 4090", 2, (8, 9))
    for gpu in card["gpus"]:
        gpu["brand"] = 5
    env, _, _ = on_b(gpu={**card, "driver_version": driver})
    if driver.startswith("525"):
        assert env["NCCL_P2P_DISABLE"].because.startswith("driver 525.105.17 claims peer-to-peer between GeForce cards")
    else:
        assert "NCCL_P2P_DISABLE" not in env


def test_cards_between_which_a_trial_s_data_arrived_wrong_do_not_talk_directly() -> None:
    copy = {"source": 0, "target": 1, "peer_access": True, "numbers": 100, "wrong": 7}
    env, _, _ = on_b(deep={"copies": [copy]})
    assert "arrived wrong in the trial" in env["NCCL_P2P_DISABLE"].because
    for right in ({**copy, "wrong": 0}, {**copy, "peer_access": False}, {**copy, "target": 5}):
        assert "NCCL_P2P_DISABLE" not in on_b(deep={"copies": [right]})[0]


@pytest.mark.parametrize(
    ("value", "cards", "kept"),
    [
        *(("0,1", 2, True), ("1,0", 2, True), ("1", 2, False), ("", 2, False), ("0,9", 2, False)),
        *(("2,3", 4, True), ("0,1,2,3", 4, False), ("3", 4, False)),
    ],
)
def test_visible_devices_hold_where_they_fit_the_slots(value: str, cards: int, kept: bool) -> None:
    cluster = two_hosts(gpu=gpus("Tesla V100-PCIE-32GB", cards, (7, 0)), **session(CUDA_VISIBLE_DEVICES=value))
    planned = made(cluster)
    variable = planned.host("b").env["CUDA_VISIBLE_DEVICES"]
    assert (variable.layer == "inherited") is kept
    assert (planned.warnings == ()) is kept
    if not kept and cards == 2:
        assert variable.unset, "all cards are wanted, so what hides one is taken away"
    if not kept and cards == 4:
        assert variable.value == "0,1"


def test_visible_devices_do_not_beat_include() -> None:
    cluster = two_hosts(**session(CUDA_VISIBLE_DEVICES="0"))
    b = replace(cluster.members[1], entry=replace(cluster.members[1].entry, devices=(1,)))
    planned = made(Cluster((cluster.members[0], b)))
    assert values_sent(planned.host("b").env)["CUDA_VISIBLE_DEVICES"] == "1"
    assert "it shows GPU 0, and GPU 1 are chosen by --include or --exclude; 1 instead" in planned.warnings[0]


def test_an_old_name_is_set_by_its_new_one() -> None:
    env, warnings, _ = on_b(torch={"version": "2.13.0"}, **session(NCCL_ASYNC_ERROR_HANDLING="1"))
    assert env["NCCL_ASYNC_ERROR_HANDLING"].unset
    assert values_sent(env)["TORCH_NCCL_ASYNC_ERROR_HANDLING"] == "1"
    assert warnings[0].endswith("it is TORCH_NCCL_ASYNC_ERROR_HANDLING now; TORCH_NCCL_ASYNC_ERROR_HANDLING=1 instead")
    both = session(NCCL_ASYNC_ERROR_HANDLING="1", TORCH_NCCL_ASYNC_ERROR_HANDLING="3")
    env, warnings, _ = on_b(torch={"version": "2.13.0"}, **both)
    assert "TORCH_NCCL_ASYNC_ERROR_HANDLING" not in values_sent(env), "the session has it by its new name"
    assert "TORCH_NCCL_ASYNC_ERROR_HANDLING is set, too" in warnings[0]


def test_a_value_that_torch_stops_at_is_written_as_it_was_meant() -> None:
    env, warnings, _ = on_b(**session(TORCH_NCCL_DUMP_ON_TIMEOUT="on", TORCH_NCCL_HEARTBEAT_TIMEOUT_SEC="soon"))
    assert env["TORCH_NCCL_DUMP_ON_TIMEOUT"].value == "1"
    assert env["TORCH_NCCL_HEARTBEAT_TIMEOUT_SEC"].unset
    assert "torch takes 0 or 1 and fails with anything else; 1 instead" in warnings[0]


def test_what_the_command_line_says_needs_no_words_about_the_session() -> None:
    setting = Setting("NCCL_SOCKET_IFNAME", "=eno1", "command line", "--env", "b")
    env, warnings, _ = on_b(JOB, setting, **session(NCCL_SOCKET_IFNAME="bond0"))
    variable = env["NCCL_SOCKET_IFNAME"]
    assert variable.replaced == (("derived", "=eno1"), ("inherited", "bond0"))
    assert variable.layer == "command line"
    assert warnings == ()


def test_a_variable_is_taken_away_by_null_and_by_the_command_line() -> None:
    text = JOB.replace('env: {OMP_NUM_THREADS: "3"}', "env: {OMP_NUM_THREADS: null, HF_HOME: null}")
    env, _, planned = on_b(
        text, Setting("WANDB_MODE", None, "command line", "--env WANDB_MODE-", "b"), **session(HF_HOME="/x")
    )
    assert names_unset(env) == ("HF_HOME", "OMP_NUM_THREADS", "WANDB_MODE")
    assert env["HF_HOME"].replaced == (("inherited", "/x"),)
    assert planned.to_dict()["hosts"][1]["env"]["HF_HOME"]["unset"] is True
    text = JOB.replace('env: {EXTRA: "1"}', "env: {NCCL_DEBUG: null}")
    planned = made(two_hosts(), text)
    first, second = (stage.command("b").env for stage in planned.stages)
    assert (names_unset(first), names_unset(second)) == ((), ("NCCL_DEBUG",))
    assert "NCCL_DEBUG" not in values_sent(planned.host("b").env, second)


def findings(planned_from: Cluster, text: str, *settings: Setting) -> dict[tuple[str, str], str]:
    """What the checks say of the hosts as planned: name and severity -> message."""
    planned = made(planned_from, text, *settings)
    seen = with_planned_environment(planned_from, planned)
    outcome = run_checks(seen, JobContext(job=job(text), cluster=seen, planned=True))
    return {(each.name, each.severity.value): each.message for each in outcome.findings}


def test_checks_judge_what_the_plan_sets() -> None:
    cluster = two_hosts(torch={"version": "2.1.2+cu121", "cuda": "12.1"})
    wrong = Setting("TORCH_NCCL_DUMP_ON_TIMEOUT", "maybe", "command line", "--env", "b")
    found = findings(cluster, JOB.replace("gpu_env: {V100: {NCCL_ALGO: Ring}}", ""), wrong)
    assert "torch takes 0 or 1 and fails with anything else" in found["bad-env-value", "error"]
    found = findings(cluster, JOB.replace("NCCL_ALGO: Ring", "NCCL_P2P_LEVEL: sys"))
    assert "NCCL_P2P_LEVEL=sys is ignored" in found["bad-env-value", "warning"]
    wrong = Setting("NCCL_SOCKET_IFNAME", "bond0", "command line", "--env", "b")
    assert ("socket-ifname-missing", "error") in findings(cluster, JOB, wrong)


def test_checks_have_nothing_to_say_of_what_the_plan_put_right() -> None:
    left = session(NCCL_SOCKET_IFNAME="bond0", CUDA_VISIBLE_DEVICES="0", TORCH_NCCL_DUMP_ON_TIMEOUT="on")
    found = findings(two_hosts(**left), JOB)
    assert not {"socket-ifname-missing", "gpus-hidden", "bad-env-value"} & {name for name, _ in found}


# ---------------------------------------------------------------------------------------------------------------------
# Equal on all ranks


def test_a_value_of_one_host_that_all_must_have_is_given_to_all() -> None:
    planned = made(two_hosts(**session(NCCL_PROTO="Simple")))
    assert planned.host("a").env["NCCL_PROTO"].value == "Simple"
    assert "b has it in the session, and all ranks must have it alike" in planned.host("a").env["NCCL_PROTO"].because
    assert planned.warnings == (
        "NCCL_PROTO=Simple on all hosts: b has it in the session, and all ranks must have it alike",
    )


def test_unequal_values_are_taken_away_everywhere() -> None:
    cluster = two_hosts(**session(NCCL_PROTO="Simple"))
    a = replace(cluster.members[0], facts=two_hosts(**session(NCCL_PROTO="LL")).members[1].facts)
    sections = a.facts.snapshot.sections if a.facts else {}
    a = host("a", 2, **{**_known(cluster), "environment": sections["environment"].value})
    planned = made(Cluster((a, cluster.members[1])))
    assert all(planned.host(name).env["NCCL_PROTO"].unset for name in ("a", "b"))
    assert planned.warnings[0].startswith("NCCL_PROTO is taken away on all hosts (LL on a; Simple on b)")
    text = JOB.replace("env: {OMP", "env: {NCCL_PROTO: LL128, OMP")
    planned = made(Cluster((a, cluster.members[1])), text)
    assert {planned.host(name).env["NCCL_PROTO"].value for name in ("a", "b")} == {"LL128"}
    assert planned.warnings == ()


def _known(cluster: Cluster) -> dict[str, Any]:
    facts = cluster.members[0].facts
    assert facts is not None
    return {name: facts.snapshot.sections[name].value for name in ("network", "gpu")}


def test_infiniband_off_on_one_host_is_off_on_all() -> None:
    cluster = two_hosts(infiniband=PORT, **session(NCCL_IB_DISABLE="1"))
    a = host("a", 2, infiniband=PORT, **_known(cluster))
    planned = made(Cluster((a, cluster.members[1])))
    assert [planned.host(name).env["NCCL_IB_DISABLE"].value for name in ("a", "b")] == ["1", "1"]
    assert planned.warnings[0].startswith("NCCL_IB_DISABLE=1 on all hosts: it is set on b, and all ranks must use one")


# ---------------------------------------------------------------------------------------------------------------------
# NCCL's and DeepSpeed's files


def test_nccl_s_file_counts_where_it_is_right_and_is_beaten_where_not() -> None:
    right = nccl_conf(NCCL_DEBUG="INFO", NCCL_SOCKET_IFNAME="eno1")
    env, warnings, planned = on_b(**session(files=[right]))
    assert env["NCCL_DEBUG"].layer == "nccl.conf"
    assert "NCCL_DEBUG" not in values_sent(env), "NCCL reads it itself"
    assert "NCCL_DEBUG=INFO [nccl.conf]: set in /etc/nccl.conf; instead of 'WARN' (derived)" in as_shell(planned)
    assert warnings == ()
    env, warnings, _ = on_b(**session(files=[nccl_conf(NCCL_SOCKET_IFNAME="bond0")]))
    assert values_sent(env)["NCCL_SOCKET_IFNAME"] == "=eno1"
    assert "NCCL_SOCKET_IFNAME=bond0 in /etc/nccl.conf is not used: no interface has a name" in warnings[0]
    env, _, _ = on_b(**session(files=[right], NCCL_DEBUG="TRACE"))
    assert env["NCCL_DEBUG"].replaced == (("derived", "WARN"), ("nccl.conf", "INFO"))


def test_a_wrong_value_of_the_session_does_not_come_back_through_nccl_s_file() -> None:
    env, _, _ = on_b(**session(files=[nccl_conf(NCCL_SOCKET_IFNAME="eno1")], NCCL_SOCKET_IFNAME="bond0"))
    assert values_sent(env)["NCCL_SOCKET_IFNAME"] == "=eno1"


def with_deepspeed_env(text: str, lines: str, **sections: Any) -> LaunchPlan:
    files = (parse_env_file(lines, "~/.deepspeed_env"),)
    return plan(job(text), two_hosts(**sections), "demo-1", PATHS, Wishes(deepspeed_env=files))


def test_deepspeed_s_file_is_a_layer_for_its_engine() -> None:
    lines = "HF_HOME=$HOME/hf\nNCCL_DEBUG=INFO\nNCCL_SOCKET_IFNAME=bond0\nHF_TOKEN=abcdef\n\n# a=b\nHOME=/root\n"
    planned = with_deepspeed_env(DEEPSPEED, lines)
    assert planned.host("b").env["HF_HOME"].value == "/home/b/hf", "as a shell on the host would have it"
    assert planned.host("b").env["NCCL_DEBUG"].layer == "deepspeed_env"
    assert values_sent(planned.host("b").env)["HF_TOKEN"] == "abcdef"
    assert "abcdef" not in str(planned.to_dict())
    assert planned.host("a").env["NCCL_SOCKET_IFNAME"].value == "bond0"
    assert planned.host("b").env["NCCL_SOCKET_IFNAME"].value == "=eno1"
    told = "\n".join(planned.warnings)
    assert "b: NCCL_SOCKET_IFNAME=bond0 in ~/.deepspeed_env is not used: no interface has a name that begins" in told
    assert "HOME=/root in ~/.deepspeed_env is not used: it belongs to the shell" in told
    assert "'# a' is no name for a variable" in told
    assert "line 5: no = in it, at which DeepSpeed's own launcher stops" in told


def test_deepspeed_s_file_is_not_read_by_other_engines_and_that_is_said() -> None:
    planned = with_deepspeed_env(JOB, "HF_HOME=/data/hf\n")
    assert "HF_HOME" not in planned.host("b").env
    assert planned.warnings == (
        "~/.deepspeed_env (HF_HOME) is read by DeepSpeed's launcher alone, and the engine is torchrun: it counts for "
        "nothing. Put what the job needs into env: of its job file",
    )


@pytest.mark.parametrize(
    ("value", "becomes"),
    [
        ("plain", "plain"),
        ("two words", "two words"),
        ("a;b|c", "a;b|c"),
        ("${HOME}/x y", '/h "q"/x y'),
        ("~/x", "~/x"),
        ("中文", "中文"),
        ('a\\"b', 'a"b'),
    ],
)
def test_values_of_deepspeed_s_file_are_what_a_shell_makes_of_them(value: str, becomes: str) -> None:
    assert as_on_host("A", value, {"HOME": '/h "q"'}) == becomes


@pytest.mark.parametrize("value", ["`id`", "$(id)", "$UNKNOWN/x", 'a"b', '"two words"'])
def test_values_that_only_a_shell_knows_are_not_taken(value: str) -> None:
    with pytest.raises(NotTakenError):
        as_on_host("A", value, {})


# ---------------------------------------------------------------------------------------------------------------------
# PATH, proxies, one host, secrets in arguments


def test_the_interpreter_s_folder_is_first_on_path() -> None:
    env, _, _ = on_b(**session(PATH="/usr/bin:/opt/env/bin"))
    assert env["PATH"].value == "/opt/env/bin:/usr/bin:/opt/env/bin"
    assert env["PATH"].replaced == (("inherited", "/usr/bin:/opt/env/bin"),)
    env, _, _ = on_b(**session(PATH="/opt/env/bin:/usr/bin"))
    assert env["PATH"].layer == "inherited"
    system = {"version": "3.10.13", "executable": "/usr/bin/python3"}
    env, _, _ = on_b(python=system, **session(PATH="/usr/local/cuda/bin:/usr/bin"))
    assert env["PATH"].layer == "inherited", "the system's own folders keep their order"


def test_no_proxy_holds_what_was_there_and_says_nothing_of_it() -> None:
    env, warnings, _ = on_b(**session(http_proxy="http://p:1", no_proxy="internal"))
    assert env["no_proxy"].value == "internal,a,b,localhost,127.0.0.1"
    assert env["no_proxy"].replaced == (("inherited", "internal"),)
    assert warnings == ()


def cache(filesystem: str = "nfs4") -> dict[str, Any]:
    """A home that all hosts see, with torch's cache of extensions in it."""
    return {"folder": "/home/x/ext", "filesystem": filesystem, "source": "server:/home"}


@pytest.mark.parametrize(
    ("gpu", "filesystem", "kept"), [((7, 0), "nfs4", False), ((8, 0), "nfs4", True), ((7, 0), "ext4", True)]
)
def test_hosts_of_other_kinds_do_not_build_in_one_folder(gpu: tuple[int, int], filesystem: str, kept: bool) -> None:
    both = {"extensions": cache(filesystem), **session(TORCH_EXTENSIONS_DIR="/home/x/ext")}
    cluster = two_hosts(gpu=gpus("Tesla", 2, gpu), **both)
    a = host("a", 2, **_known(cluster), **both)
    planned = made(Cluster((a, cluster.members[1])))
    variable = planned.host("b").env["TORCH_EXTENSIONS_DIR"]
    assert (variable.layer == "inherited") is kept
    assert kept or "would build there as well, for another kind of host" in planned.warnings[0]


def test_hosts_without_gpus_that_share_a_cache_and_differ_build_apart() -> None:
    def plain(name: str, flags: tuple[str, ...]) -> Member:
        there = {"a": "192.0.2.4", "b": "192.0.2.5"}
        other = "b" if name == "a" else "a"
        section = network("eth0", there[name], {other: ("eth0", there[other])})
        return host(name, 1, network=section, extensions=cache(), cpu={"cores": 8, "flags": flags})

    unlike = made(Cluster((plain("a", ("avx512f",)), plain("b", ("avx2",)))))
    assert {each.env["TORCH_EXTENSIONS_DIR"].value for each in unlike.hosts} == {
        "/home/a/.cache/dsdoctor/torch_extensions/a-2.1.2+cu121",
        "/home/b/.cache/dsdoctor/torch_extensions/b-2.1.2+cu121",
    }
    alike = made(Cluster((plain("a", ("avx2",)), plain("b", ("avx2",)))))
    assert all("TORCH_EXTENSIONS_DIR" not in each.env for each in alike.hosts)


def test_threads_are_shared_out_of_what_the_cgroup_allows() -> None:
    env, _, _ = on_b(JOB.replace('env: {OMP_NUM_THREADS: "3"}', ""), cpu={"cores": 64, "quota": 8.5})
    assert env["OMP_NUM_THREADS"].value == "4"
    assert env["OMP_NUM_THREADS"].because == "8 of 64 cores, by the cgroup's quota, for 2 ranks"


def test_one_host_alone_respects_its_session() -> None:
    planned = made(one_host(**session(GLOO_SOCKET_IFNAME="eth0", MASTER_ADDR="x", OMP_NUM_THREADS="1")), JOB)
    env = planned.host("localhost").env
    assert env["GLOO_SOCKET_IFNAME"].layer == "inherited"
    assert env["MASTER_ADDR"].unset
