"""The variables of the run itself: its mark on every host, and the flight recorder's places where there is NCCL."""

from __future__ import annotations

from dsdoctor.plan.layers import Setting
from dsdoctor.run.guard import order_for
from tests.plan.clusters import gpus, two_hosts
from tests.plan.test_plan import JOB, made

PIPE, DUMPS = "TORCH_NCCL_DEBUG_INFO_PIPE_FILE", "TORCH_NCCL_DEBUG_INFO_TEMP_FILE"


def test_every_rank_has_the_mark_of_its_run_and_nobody_can_take_it_away() -> None:
    planned = made(two_hosts(), JOB, Setting("DSDOCTOR_RUN", "other", "command line", "--env"))
    for host in planned.hosts:
        assert host.env["DSDOCTOR_RUN"].value == host.run_dir


def test_a_run_with_nccl_has_its_own_recorder_and_is_asked_for_it_by_a_pipe_in_tmp() -> None:
    planned = made(two_hosts(gpu=gpus("NVIDIA A100", 2, (8, 0))))
    assert PIPE in planned.host("b").env
    for host in planned.hosts:
        assert host.env[DUMPS].value == f"{host.run_dir}/recorder/rank"
        assert host.env[PIPE].value.startswith("/tmp/dsdoctor-")
        order = order_for(planned, planned.stages[0], host.name, 20, 5)
        assert f"{host.run_dir}/recorder" in order["make"]
        ranks = range(host.first_rank, host.first_rank + host.slots)
        assert order["pipes"] == [f"{host.env[PIPE].value}{rank}.pipe" for rank in ranks]


def test_a_recorder_s_place_of_the_user_s_own_stays() -> None:
    settings = [Setting(name, "/data/fr_", "command line", "--env") for name in (PIPE, DUMPS)]
    planned = made(two_hosts(gpu=gpus("NVIDIA A100", 2, (8, 0))), JOB, *settings)
    env = planned.host("b").env
    assert (env[PIPE].value, env[DUMPS].value) == ("/data/fr_", "/data/fr_")
    assert "TORCH_FR_DUMP_TEMP_FILE" not in env
    assert "/data" not in order_for(planned, planned.stages[0], "b", 20, 5)["make"]


def test_without_gpus_there_is_no_recorder() -> None:
    env = made(two_hosts(gpu=gpus("", 0, (8, 0)))).host("a").env
    assert not {PIPE, DUMPS, "TORCH_FR_DUMP_TEMP_FILE"} & set(env)
