"""What the plan shows is what a rank gets: /proc/PID/environ of every rank, to the letter, and secrets nowhere else."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any

import pytest
import yaml

from tests.cluster.commands import WORK, Head
from tests.cluster.host import ClusterHost
from tests.cluster.little_cluster import LittleCluster
from tests.cluster.plant import plant_environment

pytestmark = [pytest.mark.slow, pytest.mark.train, pytest.mark.timeout(900)]
LAUNCH = ("launch", "given/given.yaml", "--hostfile", "hostfile")
RANKS = {0: "node0", 1: "node0", 2: "node1"}
GIVEN = """
import os, pathlib, sys, time
folder = pathlib.Path(sys.argv[sys.argv.index("--output_dir") + 1])
folder.mkdir(parents=True, exist_ok=True)
rank = os.environ.get("RANK", "of" + os.environ.get("NODE_RANK", ""))
(folder / f"environ.{rank}").write_bytes(pathlib.Path("/proc/self/environ").read_bytes())
time.sleep(float(os.environ.get("PAUSE", "0")))
"""
ODD = {
    "SPACES": "  two  words ",
    "QUOTES": "it's \"so\" '\"'",
    "SHELL_WORDS": "$HOME ${PATH} $(id) `id` ; rm -rf /nowhere & | > /tmp/x < y * ? [a] ~ ! # \\ \\n",
    "LINES": "one\ntwo\r\n\tthree\n",
    "NON_ASCII": "中文 ключ é 🙂",
    "NOTHING": "",
    "LONG": "x" * 100_000,
    "DASH": "-rf --help",
    "EQUALS": "=a==b=",
    "CONTROL": "\x01\x1b[31m\x7f",
}
# What torchrun gives each rank (torch 2.13, local_elastic_agent.py), and what tells ssh's sessions and shells apart.
OF_TORCHRUN = {
    *("RANK", "LOCAL_RANK", "GROUP_RANK", "ROLE_RANK", "ROLE_NAME", "WORLD_SIZE", "LOCAL_WORLD_SIZE"),
    *("GROUP_WORLD_SIZE", "ROLE_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RESTART_COUNT"),
    *("TORCHELASTIC_MAX_RESTARTS", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_USE_AGENT_STORE", "TORCHELASTIC_ERROR_FILE"),
    *("TORCH_NCCL_ASYNC_ERROR_HANDLING", "TORCHELASTIC_SIGNALS_TO_HANDLE"),
}
# What deepspeed.launcher.launch gives each rank (DeepSpeed 0.19.8).
OF_DEEPSPEED = {
    *("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_SIZE", "CROSS_RANK", "CROSS_SIZE", "MASTER_ADDR", "MASTER_PORT"),
    *("CUDA_VISIBLE_DEVICES", "PYTORCH_NVML_BASED_CUDA_CHECK"),
}
OF_ONE_SESSION = {"_", "SHLVL", "SSH_CLIENT", "SSH_CONNECTION"}
SECRET = "-".join(("hf", "not", "for", "disks"))  # not in one piece in this file, which the hosts see


@pytest.fixture
def head(restored: LittleCluster) -> Head:
    head = Head(restored)
    job: dict[str, Any] = {
        "name": "given",
        "script": "given.py",
        "args": {"output_dir": "${output_dir}"},
        "env": {**ODD, "GONE": None, "WANTED": "by the job"},
        "stages": [{"name": "only", "env": {"OF_STAGE": "a b", "STAGE_GONE": None}}],
    }
    head.host.write(f"{WORK}/given/given.yaml", yaml.safe_dump(job))
    head.host.write(f"{WORK}/given/given.py", GIVEN)
    return head


def environ(data: bytes) -> dict[str, str]:
    pairs = data.decode("utf-8", "surrogateescape").rstrip("\0").split("\0")
    return dict(pair.split("=", 1) for pair in pairs)


def session(head: Head, host: str) -> dict[str, str]:
    """The environment in which any command that comes through ssh begins on a host."""
    head.host.ssh(host, "cat /proc/self/environ > /root/session-environ")
    return environ(head.cluster[host].read_bytes("/root/session-environ"))


def planned(head: Head, host: str, secrets: dict[str, str]) -> tuple[dict[str, str], set[str]]:
    """What the plan in the run's directory says a host's ranks get beyond their session, and what is taken away."""
    plan = json.loads(head.host.read(f"{head.state()['path']}/plan.json"))
    layers = [next(each["env"] for each in plan["hosts"] if each["name"] == host)]
    layers += [each["env"] for each in plan["stages"][0]["commands"] if each["host"] == host]
    merged = {name: variable for layer in layers for name, variable in layer.items()}
    gone = {name for name, variable in merged.items() if variable.get("unset")}
    sent = {
        name: secrets[name] if variable.get("secret") else variable["value"]
        for name, variable in merged.items()
        if name not in gone and variable.get("layer") not in ("inherited", "nccl.conf")
    }
    return sent, gone


def of_rank(head: Head, rank: int | str) -> dict[str, str]:
    """What the plan gives to one rank alone, where the guardian starts every rank itself."""
    plan = json.loads(head.host.read(f"{head.state()['path']}/plan.json"))
    parts = [part for command in plan["stages"][0]["commands"] for part in command["ranks"]]
    return next((dict(part["env"]) for part in parts if part["rank"] == rank), {})


def held_to_the_plan(head: Head, rank: int | str, host: str, of_engine: set[str]) -> dict[str, str]:
    """What a rank found in its environment: its host's session, the plan, the engine's names, and not one more."""
    found = head.cluster[host].run(["sh", "-c", f"ls /root/.dsdoctor/work/given/runs/*/outputs/*/environ.{rank}"])
    got = environ(head.cluster[host].read_bytes(found.stdout.strip()))
    sent, gone = planned(head, host, {"HF_TOKEN": SECRET})
    expected = {name: value for name, value in session(head, host).items() if name not in gone} | sent
    expected |= of_rank(head, rank)
    if "LC_CTYPE" in got and not {"LC_ALL", "LC_CTYPE", "LANG"} & set(expected):
        expected["LC_CTYPE"] = "C.UTF-8"  # any Python in the C locale sets it for its children (PEP 538)
    assert set(got) - OF_ONE_SESSION == (set(expected) | of_engine) - OF_ONE_SESSION
    told = OF_ONE_SESSION | of_engine
    assert {n: v for n, v in got.items() if n not in told} == {n: v for n, v in expected.items() if n not in told}
    return got


def plant_sessions(head: Head) -> None:
    """What people have in their start files: right things, wrong things, leftovers, odd things, a secret."""
    both = {"MASTER_ADDR": "192.0.2.99", "RANK": "7", "WORLD_SIZE": "8", "GONE": "still here", "STAGE_GONE": "too"}
    both["PET_MAX_RESTARTS"] = "3"  # torchrun takes it for an argument that is not on its command line
    plant_environment(
        head.cluster["node0"],
        {
            **both,
            "OMP_NUM_THREADS": "5",
            "GLOO_SOCKET_IFNAME": "bond0",
            "WANTED": "by the session",
            "MY_OWN": "a\nb 'c' $d",
        },
    )
    plant_environment(
        head.cluster["node1"],
        {**both, "GLOO_SOCKET_IFNAME": "bond0", "HF_HOME": "/data of alice/hf", "WANDB_API_KEY": "of-the-session"},
    )


def test_every_rank_gets_its_host_s_session_and_the_plan_and_nothing_else(head: Head) -> None:
    plant_sessions(head)
    done = head.dsdoctor(*LAUNCH, "--env", "HF_TOKEN", "--env", "node1:HF_HOME-", HF_TOKEN=SECRET)
    assert done.returncode == 0, done.stdout + done.stderr
    path = head.state()["path"]
    seen: dict[int, dict[str, str]] = {}
    for rank, host in RANKS.items():
        got = seen[rank] = held_to_the_plan(head, rank, host, OF_TORCHRUN)
        assert {name: got[name] for name in ODD} == ODD
    assert [seen[rank]["RANK"] for rank in RANKS] == ["0", "1", "2"]
    assert {seen[rank]["TORCHELASTIC_MAX_RESTARTS"] for rank in RANKS} == {"0"}, "torchrun was told no PET_ leftovers"
    assert {seen[rank]["MASTER_ADDR"] for rank in RANKS} == {"10.77.0.10"}
    assert [seen[rank]["GLOO_SOCKET_IFNAME"] for rank in RANKS] == ["bond0", "bond0", "eno1"]
    assert [seen[rank]["OMP_NUM_THREADS"] for rank in RANKS][:2] == ["5", "5"], "the user's own value counts"
    assert {seen[rank]["WANTED"] for rank in RANKS} == {"by the job"}
    assert seen[0]["MY_OWN"] == "a\nb 'c' $d", "what does not matter to training is passed on, too"
    assert "HF_HOME" not in seen[2], "taken away by --env node1:HF_HOME-"
    assert seen[2]["WANDB_API_KEY"] == "of-the-session"
    assert not any({"GONE", "STAGE_GONE"} & set(seen[rank]) for rank in RANKS), "null in the job file takes away"
    assert {seen[rank]["OF_STAGE"] for rank in RANKS} == {"a b"}
    assert "GLOO_SOCKET_IFNAME=bond0 in the session is not used: no interface is called bond0" in done.stderr
    assert "node0, node1: MASTER_ADDR=192.0.2.99 in the session is not used: it is left over" in done.stderr
    text = head.host.read(f"{path}/plan.json")
    assert "of-the-session" not in text
    assert SECRET not in text


def test_deepspeed_s_own_file_reaches_its_ranks_and_what_is_wrong_in_it_does_not(head: Head) -> None:
    text = head.host.read(f"{WORK}/given/given.yaml").replace("name: given\n", "name: given\nengine: deepspeed\n")
    head.host.write(f"{WORK}/given/given.yaml", text)
    head.host.write("/root/.deepspeed_env", "HF_HOME=$HOME/hf data;x\nGLOO_SOCKET_IFNAME=bond0\nRANK=5\n")
    done = head.dsdoctor(*LAUNCH, "--env", "HF_TOKEN", HF_TOKEN=SECRET)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "node1: GLOO_SOCKET_IFNAME=bond0 in /root/.deepspeed_env is not used: no interface is called" in done.stderr
    for rank, host in RANKS.items():
        got = held_to_the_plan(head, rank, host, OF_DEEPSPEED)
        assert got["HF_HOME"] == "/root/hf data;x"
        assert got["GLOO_SOCKET_IFNAME"] == head.cluster[host].nic
        assert got["RANK"] == str(rank)


PROGRAM = 'command: ["${python}", given.py, --output_dir, "${output_dir}"]'


@pytest.mark.parametrize(
    ("engine", "ranks"),
    [("engine: python\n", RANKS), (f"engine: program\n{PROGRAM}\n", {"of0": "node0", "of1": "node1"})],
    ids=["python", "program"],
)
def test_what_dsdoctor_starts_itself_gets_the_plan_and_not_a_name_more(
    head: Head, engine: str, ranks: dict[int | str, str]
) -> None:
    """No launcher between: not one variable that the plan does not show, and none of an earlier launch."""
    plant_sessions(head)
    text = head.host.read(f"{WORK}/given/given.yaml").replace("name: given\n", f"name: given\n{engine}")
    head.host.write(f"{WORK}/given/given.yaml", text.replace("script: given.py\n", "") if ": program" in text else text)
    done = head.dsdoctor(*LAUNCH, "--env", "HF_TOKEN", HF_TOKEN=SECRET)
    assert done.returncode == 0, done.stdout + done.stderr
    for rank, host in ranks.items():
        got = held_to_the_plan(head, rank, host, set())
        assert {name: got[name] for name in ODD} == ODD
        assert got["HF_TOKEN"] == SECRET
        assert got["DSDOCTOR_RUN"] == f"/root/.dsdoctor/work/given/runs/{head.state()['run']}"
        assert got["MASTER_ADDR"] == "10.77.0.10"
        assert got["WORLD_SIZE"] == "3", "not the 8 of an earlier launch"
        if isinstance(rank, int):
            assert (got["RANK"], got["LOCAL_RANK"]) == (str(rank), "01"[rank % 2] if rank < 2 else "0")
        else:
            assert "RANK" not in got
            assert (got["NNODES"], got["NODE_RANK"]) == ("2", rank[2:])
            assert got["NPROC_PER_NODE"] == {"node0": "2", "node1": "1"}[host]


def commands_of(host: ClusterHost) -> str:
    """Every command line on a host, as any user there sees it."""
    return "\n".join(" ".join(process.argv) for process in host.ps())


def test_a_secret_is_in_no_command_line_on_no_disk_and_in_no_output(head: Head) -> None:
    hosts = [head.host, *head.cluster.hosts]
    shown = head.dsdoctor("plan", *LAUNCH[1:], "--env", "HF_TOKEN", HF_TOKEN=SECRET)
    assert shown.returncode == 0, shown.stderr
    assert "HF_TOKEN=(secret: passed over standard input)" in shown.stdout
    script = 'read -r HF_TOKEN; export HF_TOKEN; exec "$@" > /root/output 2>&1 < /dev/null'
    words = [sys.executable, "-m", "dsdoctor", *LAUNCH, "--env", "HF_TOKEN", "--env", "PAUSE=1"]
    running = head.host.popen(["sh", "-c", script, "sh", *words], cwd=WORK, stdin=subprocess.PIPE)
    assert running.stdin is not None
    running.stdin.write(f"{SECRET}\n")  # not by the test's own command line, which is seen as well
    running.stdin.close()
    samples, ranks_seen = 0, 0
    while running.poll() is None:
        for host in hosts:
            seen = commands_of(host)
            assert SECRET not in seen, f"on {host.name}"
            ranks_seen += seen.count("given.py")
        samples += 1
        time.sleep(0.02)
    output = head.host.read("/root/output")
    assert running.returncode == 0, output
    assert samples > 20
    assert ranks_seen > 0, "the ranks were seen while they had it"
    for text in (output, shown.stdout, shown.stderr):
        assert SECRET not in text
    for rank, host in RANKS.items():  # the rank's own copy of its environment proves that it got it
        pattern = f"/root/.dsdoctor/work/given/runs/*/outputs/*/environ.{rank}"
        assert head.cluster[host].run(["sh", "-c", f"grep -c '{SECRET}' {pattern}"]).stdout.strip() != "0"
    for host in hosts:
        kept = host.run(["sh", "-c", f"grep -rl '{SECRET}' /root /tmp /var/log | grep -v '/environ[.]'"], check=False)
        assert kept.stdout == "", host.name
