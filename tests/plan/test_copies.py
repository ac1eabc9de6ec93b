"""A plan that copies and starts nothing: it needs the hosts' homes, and no facts."""

from __future__ import annotations

from pathlib import Path

import pytest

from dsdoctor.cluster import HostEntry
from dsdoctor.jobs.load import load_job
from dsdoctor.plan.copies import Paths, copy_plan
from dsdoctor.plan.model import PlanError

TEXT = "name: demo\nmodule: x\nstages: [{name: s}]\nsync: {exclude: [/big/]}\n"
WHERE = Paths("/lab/runs/sync", "/lab", "/usr/bin/python3", exclude=("/runs/",))


def job_of(folder: Path, more: str = "") -> object:
    path = folder / "job.yaml"
    path.write_text(TEXT + more)
    return load_job(str(path))


def test_files_lie_below_each_host_s_home_or_its_own_work_folder(tmp_path: Path) -> None:
    entries = [HostEntry("a", 2), HostEntry("b", 1, workdir="/data/w", user="alice", port=2222, python="/opt/python")]
    plan = copy_plan(job_of(tmp_path), entries, {"a": "/home/alice"}, WHERE)
    assert [host.code_dir for host in plan.hosts] == ["/home/alice/.dsdoctor/work/demo/code", "/data/w/code"]
    assert [host.python for host in plan.hosts] == ["python3", "/opt/python"]
    assert (plan.hosts[1].user, plan.hosts[1].port) == ("alice", 2222)
    assert plan.sync.source == "/lab"
    assert plan.sync.exclude[-2:] == ("/runs/", "/big/")
    assert plan.stages == ()


def test_this_machine_s_code_is_where_it_is(tmp_path: Path) -> None:
    plan = copy_plan(job_of(tmp_path), [HostEntry("localhost", 1, local=True)], {}, WHERE)
    assert (plan.hosts[0].code_dir, plan.hosts[0].run_dir, plan.hosts[0].python) == (
        "/lab",
        "/lab/runs/sync",
        "/usr/bin/python3",
    )


def test_a_home_that_is_not_known_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"the home folder on a is not known. Give workdir="):
        copy_plan(job_of(tmp_path), [HostEntry("a", 1)], {}, WHERE)
    with pytest.raises(PlanError, match="must be absolute"):
        copy_plan(job_of(tmp_path), [HostEntry("a", 1, workdir="w")], {"a": "/root"}, WHERE)
