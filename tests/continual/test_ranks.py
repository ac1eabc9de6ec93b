"""Ranks that agree: a failure on one is raised on all, with its rank and host."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import yaml
from continual import AgreedError, ContinualError
from continual.ranks import STACKS_SIGNAL, Place, Ranks, _precision, answer_with_stacks, join

from tests.continual.conftest import LAUNCH

pytestmark = pytest.mark.train


@dataclass(frozen=True)
class Joined(Ranks):
    """Rank 0 of three, with what the others answer."""

    others: Callable[[Any], list[Any]] = lambda value: [value, value]

    def gather(self, value: Any) -> list[Any]:
        return [value, *self.others(value)]


def rank_0(others: Callable[[Any], list[Any]]) -> Joined:
    return Joined(Place("a", 0, 0, 3), torch.device("cpu"), "fp32", others)


def test_all_well():
    with rank_0(lambda value: [("rank 1 (host b)", None), ("rank 2 (host b)", None)]).together():
        pass


def test_a_failure_elsewhere_is_raised_here():
    ranks = rank_0(lambda _: [("rank 1 (host b)", "the disk is full"), ("rank 2 (host b)", None)])
    with pytest.raises(AgreedError, match=r"^rank 1 \(host b\): the disk is full$"), ranks.together():
        pass


def test_a_failure_everywhere_names_no_rank():
    ranks = rank_0(lambda value: [("rank 1 (host b)", value[1]), ("rank 2 (host b)", value[1])])
    with pytest.raises(AgreedError, match=r"^no such folder$"), ranks.together():
        raise ContinualError("no such folder")


def test_an_unforeseen_error_keeps_its_traceback(capsys: pytest.CaptureFixture[str]):
    ranks = rank_0(lambda _: [("rank 1 (host b)", None), ("rank 2 (host b)", None)])
    with pytest.raises(AgreedError, match=r"rank 0 \(host a\): ZeroDivisionError"), ranks.together():
        _ = 1 / 0
    assert "Traceback" in capsys.readouterr().err


def test_what_must_be_equal():
    rank_0(lambda value: [value, value]).same("the base", "x")
    with pytest.raises(AgreedError, match=r"the base differs: rank 2 \(host b\) has y, rank 0 \(host a\) has x"):
        rank_0(lambda value: [value, ("rank 2 (host b)", "y")]).same("the base", "x")


def test_sums():
    assert rank_0(lambda value: [value, (1.0, 5.0)]).sums(2.0, 3.0) == [5.0, 11.0]


def test_one_process_alone(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    ranks = join(Place("a"), "auto", 1.0)
    assert (ranks.device.type, ranks.precision, ranks.gather(7)) == ("cpu", "fp32", [7])
    assert capsys.readouterr().out.startswith(
        "continual: host a rank 0 local_rank 0 world_size 1 backend none device cpu"
    )
    with pytest.raises(ContinualError, match=r"--precision bf16: rank 0 \(host a\) computes on the CPU; wanted fp32"):
        join(Place("a"), "bf16", 1.0)


def test_more_processes_than_devices(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ContinualError, match=r"local_rank 1, but torch sees 1 CUDA devices \(CUDA_VISIBLE_DEVICES="):
        join(Place("a", 1, 1, 2), "auto", 1.0)


def test_the_precision_is_one_that_every_gpu_has():
    ampere, volta = ({"place": f"rank {n}", "device": "cuda", "bf16": has} for n, has in ((0, True), (1, False)))
    assert _precision("auto", [ampere, ampere]) == "bf16"
    assert _precision("auto", [ampere, volta]) == "fp16"
    assert _precision("fp32", [ampere, volta]) == "fp32"
    with pytest.raises(AgreedError, match="--precision bf16: the GPU of rank 1 does not compute bf16"):
        _precision("bf16", [ampere, volta])


def test_what_the_launcher_says(monkeypatch: pytest.MonkeyPatch):
    for name, value in (("RANK", "3"), ("LOCAL_RANK", "1"), ("WORLD_SIZE", "4")):
        monkeypatch.setenv(name, value)
    place = Place.from_environment()
    assert (place.rank, place.local_rank, place.world_size) == (3, 1, 4)
    monkeypatch.setenv("RANK", "-1")
    with pytest.raises(ContinualError, match="RANK='-1': wanted a number"):
        Place.from_environment()


STANDING = """
import sys, time
from continual.ranks import answer_with_stacks

def waiting_for_the_others():
    print("ready", flush=True)
    sys.stdin.read()

answer_with_stacks()
waiting_for_the_others()
"""


@pytest.mark.parametrize("name", ["USR1", "SIGUSR2"])
def test_a_rank_that_stands_still_shows_its_stacks_and_goes_on(name: str):
    environment = os.environ | {STACKS_SIGNAL: name, "PYTHONPATH": str(LAUNCH)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", STANDING], env=environment, text=True, **pipes) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(getattr(signal, f"SIG{name.removeprefix('SIG')}"))
        said = process.stderr.readline()
        while "waiting_for_the_others" not in said and process.poll() is None:
            said += process.stderr.readline()
        assert "most recent call first" in said
        _, rest = process.communicate("")
        assert process.returncode == 0, rest


@pytest.mark.parametrize("name", ["FOO", "KILL", "_DFL"])
def test_a_signal_that_cannot_be_listened_to(monkeypatch: pytest.MonkeyPatch, name: str):
    monkeypatch.setenv(STACKS_SIGNAL, name)
    with pytest.raises(ContinualError, match=f"environment: {STACKS_SIGNAL}='{name}': .*; wanted USR1 or USR2"):
        answer_with_stacks()


def test_every_job_of_this_package_has_its_ranks_show_their_stacks():
    jobs = {path.name: yaml.safe_load(path.read_text()) for path in LAUNCH.glob("*.yaml")}
    ours = {
        name: job for name, job in jobs.items() if "continual.train" in [job.get("module"), *job.get("command", [])]
    }
    assert {"order_1.yaml", "with_deepspeed.yaml", "with_accelerate.yaml"} <= set(ours)
    for name, job in ours.items():
        assert job.get("env", {}).get(STACKS_SIGNAL) == "USR1", name
