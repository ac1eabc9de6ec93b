"""`dsdoctor launch` on real hosts: right environment in every rank, code copied, first failure, clean stop, resume."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable

import pytest

from tests.cluster.commands import WORK, Head
from tests.cluster.little_cluster import LittleCluster

pytestmark = [pytest.mark.slow, pytest.mark.train, pytest.mark.timeout(300)]
LAUNCH = ("launch", "job/trial.yaml", "--hostfile", "hostfile")


@pytest.fixture
def head(restored: LittleCluster) -> Head:
    return Head(restored)


def wait_until(happens: Callable[[], bool], timeout: float) -> float:
    began = time.monotonic()
    while not happens():
        assert time.monotonic() - began < timeout, f"not within {timeout} s"
        time.sleep(0.1)
    return time.monotonic() - began


def test_unlike_hosts_get_their_own_environment_and_results_come_to_the_head(head: Head) -> None:
    odd = "two words, 'quotes' \"double\" $HOME `id` 中文"
    secret = "-".join(("hf", "not", "for", "disks"))  # not in one piece in this file, which the hosts see
    done = head.dsdoctor(*LAUNCH, "--env", f"ODD_VALUE={odd}", "--env", "HF_TOKEN", HF_TOKEN=secret)
    assert done.returncode == 0, done.stdout + done.stderr
    state = head.state()
    assert [stage["status"] for stage in state["stages"]] == ["done"] * 3
    for folder in ("1-first", "2-second", "3-third"):
        ranks = json.loads(head.host.read(f"{state['path']}/outputs/{folder}/ranks.json"))
        assert [rank["host"] for rank in ranks] == ["node0", "node0", "node1"]
        assert [rank["RANK"] for rank in ranks] == ["0", "1", "2"]
        assert [rank["GLOO_SOCKET_IFNAME"] for rank in ranks] == ["bond0", "bond0", "eno1"]
        assert [rank["NCCL_SOCKET_IFNAME"] for rank in ranks] == ["=bond0", "=bond0", "=eno1"]
        assert {rank["ODD_VALUE"] for rank in ranks} == {odd}
        assert {rank["cwd"] for rank in ranks} == {"/root/.dsdoctor/work/trial/code"}
        assert {rank["token"] for rank in ranks} == {len(secret)}, "the secret reached the ranks"
    for host in (head.host, *head.cluster.hosts):
        kept = host.run(["grep", "-rl", secret, "/root", "/tmp"], check=False).stdout
        assert kept == "", "and no disk"
    merged = head.host.read(f"{state['path']}/logs/2-second/merged.log")
    assert "node1:2| stage second step 2 sum 6" in merged
    assert head.ranks() == []
    # what the plan shows is what the ranks got
    plan = json.loads(head.host.read(f"{state['path']}/plan.json"))
    assert plan["hosts"][1]["env"]["GLOO_SOCKET_IFNAME"]["because"] == "the route to 10.77.0.10 leaves by eno1"


def test_a_killed_rank_is_named_everything_stops_and_the_next_launch_goes_on_there(head: Head) -> None:
    running = head.start(*LAUNCH, "--set", "second.steps=100000", "--set", "second.pause=0.05")
    node1 = head.cluster["node1"]
    wait_until(lambda: "stage second step 3" in _log(head, "2-second"), 90)
    victim = next(
        process for process in node1.ps("--stage second") if "torch.distributed.run" not in " ".join(process.argv)
    )
    node1.kill(victim.pid, signal.SIGKILL)
    took = wait_until(lambda: head.ranks() == [], 15)
    output, _ = running.communicate(timeout=30)
    assert running.returncode == 1, output
    assert took < 15
    assert "rank 2 on node1 was killed by SIGKILL" in output
    state = head.state()
    verdict = json.loads(head.host.read(f"{state['path']}/verdict.json"))["verdict"]
    assert (verdict["cause"], verdict["host"], verdict["rank"]) == ("process-killed-externally", "node1", 2)
    # the job is the same work, so the same settings are given again; the stage is finished this time
    again = head.start(*LAUNCH, "--set", "second.steps=100000", "--set", "second.pause=0.05")
    wait_until(lambda: head.state()["stages"][1]["attempts"] == 2, 60)
    wait_until(lambda: "stage second step 3" in _log(head, "2-second"), 90)
    again.send_signal(signal.SIGINT)
    output, _ = again.communicate(timeout=30)
    assert again.returncode == 130, output
    assert "first: done before" in output
    wait_until(lambda: head.ranks() == [], 10)


def test_resume_ends_as_an_undisturbed_run_would(head: Head) -> None:
    failing = head.dsdoctor(*LAUNCH, "--set", "third.raise_on_rank=1")
    assert failing.returncode == 1
    assert "the label of row 17" in failing.stderr + failing.stdout
    first = head.state()
    again = head.dsdoctor(*LAUNCH, "--set", "third.raise_on_rank=1")
    assert head.state()["path"] == first["path"], "the same work goes on in the same run"
    assert again.returncode == 1
    assert head.state()["stages"][0]["attempts"] == 1
    # other settings: shown, and not gone on with unasked
    other = head.dsdoctor(*LAUNCH)
    assert other.returncode == 2, other.stderr
    assert "args.third.raise_on_rank: 1 → not set" in other.stderr
    script = head.host.read(f"{WORK}/job/trial.py")
    head.host.write(f"{WORK}/job/trial.py", script + "\n# a comment\n")
    agreed = head.dsdoctor(*LAUNCH, "--yes")
    assert agreed.returncode == 0, agreed.stderr
    assert "trial.py was changed" in agreed.stderr
    last = head.state()
    assert last["path"] == first["path"]
    assert [(stage["status"], stage["attempts"]) for stage in last["stages"]] == [("done", 1), ("done", 1), ("done", 3)]
    ranks = json.loads(head.host.read(f"{last['path']}/outputs/3-third/ranks.json"))
    assert [rank["RANK"] for rank in ranks] == ["0", "1", "2"]


def test_a_wrong_interface_is_refused_and_when_forced_named_from_the_real_log(head: Head) -> None:
    wrong = ("--env", "node1:GLOO_SOCKET_IFNAME=bond0")
    refused = head.dsdoctor(*LAUNCH, *wrong)
    assert refused.returncode == 1
    assert "socket-ifname-missing" in refused.stdout + refused.stderr
    assert head.host.run(["ls", WORK]).stdout.split() == ["hostfile", "job"], "a refused launch leaves nothing"
    forced = head.dsdoctor(*LAUNCH, *wrong, "--ignore", "socket-ifname-missing", timeout=120)
    assert forced.returncode == 1
    verdict = json.loads(head.host.read(f"{head.state()['path']}/verdict.json"))["verdict"]
    assert (verdict["cause"], verdict["host"]) == ("gloo-socket-ifname", "node1")
    assert head.ranks() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_head_s_end_leaves_no_process_on_any_host(head: Head, number: int) -> None:
    running = head.start(*LAUNCH, "--set", "steps=100000", "--set", "pause=0.05")
    wait_until(lambda: "step 3" in _log(head, "1-first"), 90)
    running.send_signal(number)
    wait_until(lambda: head.ranks() == [], 15)
    running.wait(timeout=30)
    if number != signal.SIGKILL:
        assert running.returncode == 130


def test_a_muted_host_is_noticed_and_both_ends_stop(head: Head) -> None:
    running = head.start(*LAUNCH, "--lifeline", "5", "--set", "steps=100000", "--set", "pause=0.05")
    wait_until(lambda: "step 3" in _log(head, "1-first"), 90)
    head.cluster["node1"].mute()
    wait_until(lambda: head.ranks() == [], 25)
    output, _ = running.communicate(timeout=40)
    assert running.returncode == 1
    assert "node1" in output
    assert "no sign of life for 5 s" in output


def test_a_foreign_folder_is_left_alone(head: Head) -> None:
    node0 = head.cluster["node0"]
    node0.write("/root/.dsdoctor/work/trial/code/thesis.tex", "years of work")
    done = head.dsdoctor(*LAUNCH)
    assert done.returncode == 1
    assert "holds files that dsdoctor did not put there" in done.stderr
    assert node0.read("/root/.dsdoctor/work/trial/code/thesis.tex") == "years of work"


def test_hosts_with_a_shared_folder_are_copied_to_once(head: Head) -> None:
    head.host.write(
        f"{WORK}/hostfile",
        head.host.read(f"{WORK}/hostfile").replace("slots=", "workdir=/shared/work slots=", 0),
    )
    lines = [f"{line} workdir=/shared/work" for line in head.host.read(f"{WORK}/hostfile").splitlines()]
    head.host.write(f"{WORK}/hostfile", "\n".join(lines) + "\n")
    done = head.dsdoctor(*LAUNCH)
    assert done.returncode == 0, done.stderr
    assert "node1 shares the folder of node0" in done.stderr


def _log(head: Head, folder: str) -> str:
    done = head.host.run(["sh", "-c", f"cat {WORK}/runs/*/logs/{folder}/merged.log"], check=False)
    return done.stdout


FOUR = """
name: four
script: four.py
args: {output_dir: "${output_dir}", stage: "${stage}"}
gpu_env: {A100: {ON: a100}, V100: {ON: v100}}
stages:
  - {name: first, outputs: [rank0.json]}
  - {name: second, outputs: [rank0.json]}
  - {name: third, env: {ON: "the third stage's"}, outputs: [rank0.json]}
  - {name: fourth, outputs: [rank0.json]}
"""
FOUR_PY = """
import json, os, pathlib, sys
where = pathlib.Path(sys.argv[sys.argv.index("--output_dir") + 1])
where.mkdir(parents=True, exist_ok=True)
pairs = (entry.partition("=") for entry in pathlib.Path("/proc/self/environ").read_text().split(chr(0)) if entry)
found = {name: value for name, _, value in pairs}
(where / f"rank{os.environ['RANK']}.json").write_text(json.dumps(found))
"""


def test_four_stages_on_hosts_of_unlike_cards_names_and_slots_give_every_rank_its_own_environment(
    head: Head, fake_nvml: object
) -> None:
    head.cluster["node0"].install_fake_gpus("a100")
    head.cluster["node1"].install_fake_gpus("v100")
    head.host.write("/root/lab/job/four.yaml", FOUR)
    head.host.write("/root/lab/job/four.py", FOUR_PY)
    done = head.dsdoctor("launch", "job/four.yaml", "--hostfile", "hostfile", "--no-check", timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    plan = json.loads(head.host.read(f"{head.state()['path']}/plan.json"))
    assert [(host["name"], host["slots"]) for host in plan["hosts"]] == [("node0", 2), ("node1", 1)]
    run = head.state()["run"]
    for stage in plan["stages"]:
        for rank, (host, card) in enumerate((("node0", bond("a100")), ("node0", bond("a100")), ("node1", eno("v100")))):
            path = f"/root/.dsdoctor/work/four/runs/{run}/outputs/{stage['folder']}/rank{rank}.json"
            got = json.loads(head.cluster[host].read(path))
            shown = next(each for each in plan["hosts"] if each["name"] == host)["env"]
            command = next(each for each in stage["commands"] if each["host"] == host)
            wanted = {name: one["value"] for name, one in {**shown, **command.get("env", {})}.items()}
            assert {name: got.get(name) for name in wanted} == wanted, f"{stage['name']}, rank {rank}"
            if stage["name"] == "third":
                card = {**card, "ON": "the third stage's"}
            assert {name: got.get(name) for name in card} == card
            assert (got["RANK"], got["LOCAL_RANK"], got["WORLD_SIZE"]) == (str(rank), str(rank % 2), "3")


def bond(card: str) -> dict[str, str]:
    return {"GLOO_SOCKET_IFNAME": "bond0", "NCCL_SOCKET_IFNAME": "=bond0", "ON": card}


def eno(card: str) -> dict[str, str]:
    return {"GLOO_SOCKET_IFNAME": "eno1", "NCCL_SOCKET_IFNAME": "=eno1", "ON": card}
