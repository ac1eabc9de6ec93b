"""Stages carried out by several ranks: one start of torchrun does many settings one after the other.

Starting ranks costs far more than a few steps on a tiny model. The process group stays from one stage to the next; all
else of a stage is as it is by itself. What a stage prints on a rank goes into files of its own.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.continual.conftest import LAUNCH, stage_flags

MODULE = ("-m", "continual.train")

WORKER = """
import contextlib, json, os, sys
from pathlib import Path

import torch.distributed as dist
from continual import ranks, trainer
from continual.train import main

folder, rank = Path(sys.argv[1]), int(os.environ["RANK"])
rendezvous, step = ranks._rendezvous, trainer.Training._step

class Stopped(BaseException):
    pass

def once(place, device, backend, mine, timeout):
    if not dist.is_initialized():
        return rendezvous(place, device, backend, mine, timeout)
    everyone = [None] * place.world_size
    dist.all_gather_object(everyone, mine)
    return everyone

ranks._rendezvous, ranks.Ranks.leave = once, lambda self: None

def carry_out(run):
    def stepped(self, number, *rest):
        if number == run["stop"]:
            raise Stopped
        result = step(self, number, *rest)
        if rank == 1 and number == run["at"]:
            exec(run["disturbance"], {"self": self})
        return result

    trainer.Training._step = stepped
    os.environ.pop("CONTINUAL_PER_DEVICE_TRAIN_BATCH_SIZE", None)
    if run["sizes"]:
        os.environ["CONTINUAL_PER_DEVICE_TRAIN_BATCH_SIZE"] = str(run["sizes"][rank])
    place = folder / f"{run['name']}.{rank}"
    with place.with_suffix(f".{rank}.out").open("w") as out, place.with_suffix(f".{rank}.err").open("w") as err:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = main(run["flags"])
            except Stopped:
                code = -1
    place.with_suffix(f".{rank}.code").write_text(str(code))

for run in json.loads((folder / "runs.json").read_text()):
    print("tests: now", run["name"], flush=True)
    carry_out(run)
    dist.barrier()
dist.destroy_process_group()
sys.stdout.flush()
os._exit(0)
"""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def torchrun(cwd: Path, processes: int, program: tuple[str, ...], port: int, *nodes: str) -> subprocess.Popen[str]:
    argv = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(processes)]
    argv += [*nodes, "--master_addr", "127.0.0.1", "--master_port", str(port), *program]
    environment = os.environ | {"PYTHONPATH": str(LAUNCH), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    return subprocess.Popen(
        argv,
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def losses(out: str) -> list[tuple[float, float]]:
    lines = [ast.literal_eval(line) for line in out.splitlines() if line.startswith("{")]
    return [(line["loss"], line["grad_norm"]) for line in lines]


@dataclass
class Runs:
    """Stages of order_1 on the tiny encoder, below one folder; what each printed, by name."""

    encoder: Path
    benchmark: Path
    folder: Path
    planned: list[dict[str, Any]] = field(default_factory=list)

    def flags(self, output: Path, stage: int = 1, **other: object) -> list[str]:
        return stage_flags(self.encoder, self.benchmark, output, stage, **other)

    def alone(self, flags: list[str], stop: int = 0) -> str:
        """By one process, this one; what it printed. Stopped before a step, if one is named."""
        from continual import trainer
        from continual.train import main

        step = trainer.Training._step

        def stepped(training: trainer.Training, number: int, *rest: Any) -> Any:
            if number == stop:
                raise KeyboardInterrupt
            return step(training, number, *rest)

        out = io.StringIO()
        with pytest.MonkeyPatch.context() as patched, contextlib.redirect_stdout(out):
            for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
                patched.delenv(name, raising=False)
            patched.setattr(trainer.Training, "_step", stepped)
            try:
                assert main(flags) == 0
            except KeyboardInterrupt:
                assert stop
        return out.getvalue()

    def plan(self, name: str, flags: list[str], sizes: tuple[int, ...] = (), stop: int = 0, **sick: object) -> None:
        """Have the ranks carry it out in their turn. `sick`: a disturbance (Python) of rank 1, `at` a step."""
        shape: dict[str, Any] = {"name": name, "flags": flags, "sizes": sizes, "stop": stop}
        self.planned.append(shape | {"at": 0, "disturbance": ""} | sick)

    def carry_out(self, *ranks: int, seconds: float = 800) -> None:
        """All that is planned, by so many ranks on each host, in a folder of its own: `host0`, `host1`."""
        (self.folder / "runs.json").write_text(json.dumps(self.planned))
        script = self.folder / "worker.py"
        script.write_text(WORKER)
        port = free_port()
        started = []
        for number, count in enumerate(ranks):
            cwd = self.folder / f"host{number}"
            cwd.mkdir(exist_ok=True)
            nodes = ("--nnodes", str(len(ranks)), "--node_rank", str(number)) if len(ranks) > 1 else ()
            started.append(torchrun(cwd, count, (str(script), str(self.folder)), port, *nodes))
        said = [ended(process, seconds) for process in started]
        assert [code for code, _ in said] == [0] * len(ranks), "\n".join(out for _, out in said)

    def out(self, name: str, rank: int = 0) -> str:
        return (self.folder / f"{name}.{rank}.out").read_text()

    def err(self, name: str) -> str:
        """Of all ranks."""
        return "".join(path.read_text() for path in sorted(self.folder.glob(f"{name}.[0-9].err")))

    def codes(self, name: str) -> list[int]:
        return [int(path.read_text()) for path in sorted(self.folder.glob(f"{name}.[0-9].code"))]


def ended(process: subprocess.Popen[str], seconds: float = 240) -> tuple[int, str]:
    try:
        out, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, _ = process.communicate()
        pytest.fail(f"not done within {seconds} s\n{out}")
    return process.returncode, out
