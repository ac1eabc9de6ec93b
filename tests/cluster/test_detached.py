"""Runs that outlive their shell, their head and one kill -9 of what guards them, on real hosts."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.cluster.commands import WORK, Head
from tests.cluster.host import ClusterHost
from tests.cluster.little_cluster import LittleCluster

pytestmark = [pytest.mark.slow, pytest.mark.train, pytest.mark.timeout(900)]
LAUNCH = ("launch", "job/trial.yaml", "--hostfile", "hostfile")
STAGES = ("first", "second", "third")


@pytest.fixture
def head(restored: LittleCluster) -> Head:
    return Head(restored)


def wait_until(happens: Callable[[], bool], timeout: float) -> float:
    began = time.monotonic()
    while not happens():
        assert time.monotonic() - began < timeout, f"not within {timeout} s"
        time.sleep(0.1)
    return time.monotonic() - began


def detached(head: Head, *words: str, **env: str) -> str:
    """Launch so that the shell comes back; gives the run's name."""
    done = head.dsdoctor(*LAUNCH, "--detach", *words, **env)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "goes on by itself" in done.stderr
    return str(head.state()["run"])


def log(head: Head, folder: str, name: str = "merged.log") -> str:
    return head.host.run(["sh", "-c", f"cat {WORK}/runs/*/logs/{folder}/{name}"], check=False).stdout


def holder(head: Head) -> int:
    return int(json.loads(head.host.read(f"{head.state()['path']}/lock"))["pid"])


def expect_each_line_once(head: Head, steps: int) -> None:
    """The logs are those of an undisturbed run: every rank's lines, all of them, in their order, none twice."""
    for index, stage in enumerate(STAGES, 1):
        wanted = [f"stage {stage} step {step} sum 6" for step in range(steps)]
        folder = f"{index}-{stage}"
        for host, rank in (("node0", 0), ("node0", 1), ("node1", 2)):
            lines = log(head, folder, f"{host}/rank{rank}.log").splitlines()
            assert [line for line in lines if line.startswith("stage ")] == wanted, f"{folder} rank {rank}"
        merged = [line for line in log(head, folder).splitlines() if "| stage " in line]
        assert len(merged) == len(set(merged)) == 3 * steps


def test_a_run_outlives_its_shell_and_is_found_followed_and_stopped_from_another(head: Head) -> None:
    run = detached(head, "--set", "steps=100000", "--set", "pause=0.05")
    listed = json.loads(head.dsdoctor("runs", "--format", "json").stdout)["runs"]
    assert [(each["run"], each["status"], each["detached"]) for each in listed] == [(run, "running", True)]
    following = head.start("logs", run, "--follow", "--rank", "2")
    attached = head.start("attach", run)
    wait_until(lambda: "step 9" in log(head, "1-first", "node1/rank2.log"), 60)
    told = json.loads(head.dsdoctor("status", run, "--format", "json").stdout)
    assert told["status"] == "running"
    for host in told["hosts"]:
        assert host["guardian"]["attempt"] == "1-first.1"
        assert host["last_line"].startswith("stage first step")
        assert host["quiet"] < 10
    attached.send_signal(signal.SIGINT)
    output, _ = attached.communicate(timeout=120)
    assert attached.returncode == 0
    assert f"left; {run} goes on" in output
    assert "node0:0| stage first step" in output
    assert head.ranks() != []
    began = time.monotonic()
    stopped = head.dsdoctor("stop", run[:-3] + run[-3:])
    assert stopped.returncode == 0, stopped.stderr
    assert head.ranks() == []
    print(f"stopped within {time.monotonic() - began:.1f} s")
    assert [line.split(":")[0] for line in stopped.stderr.splitlines()[-2:]] == ["node0", "node1"]
    lines, _ = following.communicate(timeout=120)
    shown = [line for line in lines.splitlines() if line.startswith("node1:2| stage first")]
    assert shown[0] == "node1:2| stage first step 0 sum 6"
    assert len(shown) == len(set(shown)) > 9
    assert following.returncode == 0, "follow ends with the run"
    state = head.state()
    assert (state["status"], state["stages"][0]["status"]) == ("interrupted", "interrupted")
    assert head.dsdoctor("stop", "trail").returncode == 2


def test_the_head_is_powered_off_and_the_run_is_taken_over_without_a_line_lost_or_doubled(head: Head) -> None:
    run = detached(head, "--set", "steps=120", "--set", "pause=0.1")
    wait_until(lambda: "step 20" in log(head, "1-first"), 60)
    head.host.poweroff()
    time.sleep(3)
    assert {name for name, _ in head.ranks()} == {"node0", "node1"}, "the hosts go on"
    head.host.boot()
    listed = json.loads(head.dsdoctor("runs", "--format", "json").stdout)["runs"]
    assert [each["status"] for each in listed] == ["headless"]
    assert "without a head: attach or stop" in head.dsdoctor("runs").stdout
    attached = head.dsdoctor("attach", timeout=200)
    assert attached.returncode == 0, attached.stderr
    assert "taking over" in attached.stderr
    state = head.state()
    assert [(stage["status"], stage["attempts"]) for stage in state["stages"]] == [("done", 1)] * 3
    assert state["run"] == run
    expect_each_line_once(head, 120)
    assert head.ranks() == []


def test_a_head_that_is_killed_is_taken_over_by_the_next_launch_and_two_never_hold_a_run(head: Head) -> None:
    run = detached(head, "--set", "steps=60", "--set", "pause=0.1")
    wait_until(lambda: "step 5" in log(head, "1-first"), 60)
    second = head.dsdoctor(*LAUNCH, "--set", "steps=60", "--set", "pause=0.1")
    assert second.returncode == 2
    assert f"carried out by process {holder(head)}" in second.stderr
    head.host.kill(holder(head), signal.SIGKILL)
    launched = head.start(*LAUNCH, "--set", "steps=60", "--set", "pause=0.1")
    attached = head.start("attach", run)
    outputs = [each.communicate(timeout=200)[0] for each in (launched, attached)]
    assert attached.returncode == 0, outputs
    assert launched.returncode in (0, 2), outputs  # 2: the other was quicker, and it was refused
    assert ("carried out by process" in outputs[0]) == (launched.returncode == 2)
    assert sum("has one again" in output for output in outputs) == 1, outputs
    expect_each_line_once(head, 60)
    assert [stage["attempts"] for stage in head.state()["stages"]] == [1, 1, 1]


def test_a_stage_that_ended_while_no_head_was_there_is_known_by_its_spool(head: Head) -> None:
    detached(head, "--set", "steps=20", "--set", "pause=0.1")
    wait_until(lambda: "step 3" in log(head, "1-first"), 60)
    head.host.kill(holder(head), signal.SIGKILL)
    wait_until(lambda: head.ranks() == [], 60)

    def told() -> Any:
        return json.loads(head.dsdoctor("status", "--format", "json").stdout)

    wait_until(lambda: [host["guardian"] for host in told()["hosts"]] == [None, None], 60)
    assert told()["status"] == "headless"
    attached = head.dsdoctor("attach", timeout=200)
    assert attached.returncode == 0, attached.stderr
    expect_each_line_once(head, 20)


def test_a_line_that_breaks_is_drawn_anew_and_nothing_is_lost(head: Head) -> None:
    detached(head, "--set", "steps=100", "--set", "pause=0.1")
    wait_until(lambda: "step 5" in log(head, "1-first"), 60)
    node1 = head.cluster["node1"]
    for process in node1.ps("sshd: root"):
        node1.run(["kill", "-9", str(process.pid)], check=False)
    wait_until(lambda: head.state()["stages"][0]["status"] == "done", 60)
    attached = head.dsdoctor("attach", timeout=200)
    assert attached.returncode == 0, attached.stderr
    expect_each_line_once(head, 100)


def test_a_detached_host_that_was_lost_ends_by_itself_and_its_head_waits_to_see_that(head: Head) -> None:
    run = detached(head, "--lifeline", "5", "--set", "steps=100000", "--set", "pause=0.05")
    following = head.start("attach", run)
    wait_until(lambda: "step 5" in log(head, "1-first"), 60)
    node1 = head.cluster["node1"]
    node1.mute()
    noticed = wait_until(lambda: head.state()["status"] == "failed", 60)
    print(f"noticed and told after {noticed:.1f} s")
    assert "node1 was lost (no sign of life for 5 s" in head.state()["failure"]
    following.communicate(timeout=120)
    assert following.returncode == 1, "the run is over, though its head stays for node1"
    print(f"gone everywhere {wait_until(lambda: head.ranks() == [], 60):.1f} s after")
    node1.heal()
    path = head.state()["path"]
    wait_until(lambda: "node1 is reached again" in head.host.read(f"{path}/head.log"), 60)


WAITING = """
import os, pathlib, signal, time
print("waits", flush=True)
while not pathlib.Path("/run/fail").exists():  # as ranks wait in NCCL for one that is gone: nothing tells them
    time.sleep(0.1)
raise SystemExit(7)
"""


@pytest.mark.parametrize("how", ["a rank fails", "the guardian and its keeper are killed", "power"])
def test_without_a_head_a_failure_on_one_host_ends_the_others(head: Head, how: str) -> None:
    head.host.write(f"{WORK}/job/waiting.py", WAITING)
    head.host.write(
        f"{WORK}/job/trial.yaml", "name: trial\nengine: python\nscript: waiting.py\nstages: [{name: only}]\n"
    )
    run = detached(head, "--lifeline", "6")
    wait_until(lambda: log(head, "1-only").count("waits") == 3, 60)
    head.host.kill(holder(head), signal.SIGKILL)
    node0, node1 = head.cluster.hosts
    struck = time.monotonic()
    if how == "a rank fails":
        node1.write("/run/fail", "")
    elif how == "power":
        node1.poweroff()
    else:
        node1.run(["kill", "-9", *map(str, guardians(node1))])
    wait_until(lambda: not node0.ps("waiting.py"), 90)
    print(f"gone on node0 {time.monotonic() - struck:.1f} s after: {how}")
    if how == "power":
        node1.boot()
        head.host.forget_neighbours()
    attached = head.dsdoctor("attach", run, timeout=100)
    assert attached.returncode == 1, attached.stderr
    failure = head.state()["failure"]
    if how == "a rank fails":
        assert failure == "stage only failed: rank 2 on node1 ended with exit code 7"
        assert "the guardian of node0 ended the job: node1 failed" in attached.stderr
    else:
        assert failure.startswith("stage only failed: node1 was lost ("), failure
        assert "the guardian of node0 ended the job: n" in attached.stderr, "nothing was heard of it, or its last word"
    assert head.ranks() == []


def test_a_host_that_cannot_be_reached_is_named_by_status_and_stop(head: Head) -> None:
    detached(head, "--set", "steps=100000", "--set", "pause=0.05")
    node1 = head.cluster["node1"]
    node1.mute()
    told = head.dsdoctor("status")
    assert told.returncode == 3
    assert "node1: could not be asked" in told.stdout
    stopped = head.dsdoctor("stop", timeout=120)
    assert stopped.returncode == 3, stopped.stderr
    assert "node0: nothing runs any more" in stopped.stderr
    assert "node1: could not be reached" in stopped.stderr
    assert "goes on until it is stopped: give this again" in stopped.stderr
    assert {name for name, _ in head.ranks()} <= {"node1"}
    node1.heal()
    again = head.dsdoctor("stop", timeout=120)
    assert again.returncode == 0, again.stderr
    assert head.ranks() == []


def test_a_host_that_was_started_anew_has_lost_its_guardian_for_certain(head: Head) -> None:
    detached(head, "--set", "steps=100000", "--set", "pause=0.05")
    head.host.kill(holder(head), signal.SIGKILL)
    node1 = head.cluster["node1"]
    node1.poweroff()
    node1.boot()
    attached = head.dsdoctor("attach", timeout=100)
    assert attached.returncode == 1, attached.stderr
    assert "node1 was lost (the host was started anew meanwhile)" in attached.stderr
    assert "this process stays" not in attached.stderr, "nothing is left there"
    assert head.ranks() == []
    again = head.dsdoctor(*LAUNCH, "--set", "steps=100000", "--set", "pause=0.05", "--detach")
    assert again.returncode == 0, again.stderr
    assert head.dsdoctor("stop").returncode == 0
    assert head.ranks() == []


def test_a_secret_is_kept_nowhere_and_asked_for_again(head: Head) -> None:
    secret = "-".join(("hf", "not", "for", "disks"))  # not in one piece in this file, which the hosts see
    words = ("--env", "HF_TOKEN", "--set", "steps=20", "--set", "pause=0.1")
    run = detached(head, *words, HF_TOKEN=secret)
    head.host.kill(holder(head), signal.SIGKILL)
    attached = head.dsdoctor("attach", run, timeout=100)
    assert attached.returncode == 1
    assert "stage second was not started" in attached.stderr
    assert "HF_TOKEN (came from --env HF_TOKEN" in attached.stderr
    assert head.state()["stages"][1]["attempts"] == 0
    again = head.dsdoctor(*LAUNCH, *words, HF_TOKEN=secret, timeout=200)
    assert again.returncode == 0, again.stderr
    for host in (head.host, *head.cluster.hosts):
        kept = host.run(["grep", "-rl", secret, "/root", "/tmp"], check=False).stdout
        assert kept == "", "on no disk"
    ranks = json.loads(head.host.read(f"{head.state()['path']}/outputs/3-third/ranks.json"))
    assert {rank["token"] for rank in ranks} == {len(secret)}


FORKING = """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execvp("sleep", ["sleep", "4711"])
    os._exit(0)
print("forked", flush=True)
time.sleep(1000)
"""


def guardians(host: ClusterHost) -> tuple[int, int]:
    """Keeper and guardian on a host: what carries the guardian's source, the one below the other."""
    found = {
        process.pid: process.parent for process in host.ps('"dsdoctor","exec"') if process.argv[0] == sys.executable
    }
    return next((parent, pid) for pid, parent in found.items() if parent in found)


@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("victim", ["keeper", "guardian"])
def test_one_kill_9_of_what_guards_leaves_no_orphan_on_any_host(head: Head, victim: str, detach: bool) -> None:
    head.host.write(f"{WORK}/job/forking.py", FORKING)
    head.host.write(f"{WORK}/job/trial.yaml", "name: trial\nscript: forking.py\nstages: [{name: only}]\n")
    running = None if detach else head.start(*LAUNCH)
    if detach:
        detached(head)
    wait_until(lambda: log(head, "1-only").count("forked") == 3, 60)
    node1 = head.cluster["node1"]
    assert node1.ps("sleep 4711")
    keeper, guardian = guardians(node1)
    began = time.monotonic()
    node1.kill(keeper if victim == "keeper" else guardian, signal.SIGKILL)
    wait_until(lambda: head.ranks() == [] and not any(host.ps("sleep 4711") for host in head.cluster.hosts), 60)
    print(f"gone after {time.monotonic() - began:.1f} s")
    if running is not None:
        running.communicate(timeout=120)
        assert running.returncode == 1
    wait_until(lambda: head.state()["status"] == "failed", 60)
    failure = head.state()["failure"]
    how = "its guardian was killed (SIGKILL)" if victim == "guardian" else "its keeper was killed"
    assert failure == f"stage only failed: the guardian of node1 ended the job ({how})"


STUBBORN = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execvp("sleep", ["sleep", "4711"])
    os._exit(0)
print("forked", flush=True)
time.sleep(1000)
"""


def strays(head: Head) -> list[str]:
    """What is left of a run on node1 that takes no notice of TERM, or was forked away."""
    return [str(process) for word in ("stubborn.py", "sleep 4711") for process in head.cluster["node1"].ps(word)]


@pytest.mark.parametrize("detach", [False, True])
def test_what_outlives_guardian_and_keeper_killed_at_one_blow_is_found_and_ended(head: Head, detach: bool) -> None:
    head.host.write(f"{WORK}/job/stubborn.py", STUBBORN)
    job = "name: trial\nengine: python\nscript: stubborn.py\nstages: [{name: only}]\n"
    head.host.write(f"{WORK}/job/trial.yaml", job)
    stranger = head.cluster["node1"].popen(["sleep", "4712"])
    running = None if detach else head.start(*LAUNCH)
    if detach:
        detached(head)
    wait_until(lambda: log(head, "1-only").count("forked") == 3, 60)
    node1 = head.cluster["node1"]
    keeper, guardian = guardians(node1)
    if detach:  # no head either: it would end them at once
        head.host.kill(holder(head), signal.SIGKILL)
    node1.run(["kill", "-9", str(keeper), str(guardian)])
    if running is not None:
        output, _ = running.communicate(timeout=60)
        assert running.returncode == 1
        assert "ended on node1, where its guardian was killed: 2 processes that were left behind" in output
        assert strays(head) == []
    else:
        assert len(strays(head)) == 2
        told = head.dsdoctor("status").stdout
        assert "node1: 2 processes that nobody guards are left behind; dsdoctor stop ends them" in told
        stopped = head.dsdoctor("stop", timeout=120)
        assert stopped.returncode == 0, stopped.stderr
        assert "node1: stopped 2 processes that were left behind" in stopped.stderr
        assert strays(head) == []
    assert node1.ps("sleep 4712"), "another's process is none of ours"
    stranger.kill()


def test_a_launch_that_is_killed_in_a_later_stage_goes_on_with_that_stage(head: Head) -> None:
    words = ("--set", "second.steps=100000", "--set", "second.pause=0.05")
    running = head.start(*LAUNCH, *words)
    wait_until(lambda: "stage second step 3" in log(head, "2-second"), 90)
    running.send_signal(signal.SIGKILL)
    running.wait(timeout=60)
    assert head.state()["status"] == "running", "what a killed launch leaves"
    assert json.loads(head.dsdoctor("runs", "--format", "json").stdout)["runs"][0]["status"] == "headless"
    again = head.dsdoctor(*LAUNCH, "--yes", timeout=120)
    assert again.returncode == 0, again.stderr
    assert "first: done before" in again.stderr
    assert [stage["attempts"] for stage in head.state()["stages"]] == [1, 2, 1]


def test_stages_by_name(head: Head) -> None:
    early = head.dsdoctor(*LAUNCH, "--from", "second")
    assert early.returncode == 2
    assert "before it these stages are not done: first" in early.stderr
    assert head.dsdoctor(*LAUNCH, "--stage", "secnod").returncode == 2
    assert head.dsdoctor(*LAUNCH, "--stage", "first").returncode == 0
    assert [stage["status"] for stage in head.state()["stages"]] == ["done", "planned", "planned"]
    rest = head.dsdoctor(*LAUNCH, "--from", "second", timeout=120)
    assert rest.returncode == 0, rest.stderr
    assert [stage["attempts"] for stage in head.state()["stages"]] == [1, 1, 1]
    assert head.state()["status"] == "done"
